"""New tensors of a reduced model that need not wait in memory for the moment in which they are written.

Those of the first layers are kept as far as `KEPT_BYTES` go, and so are small ones. Any other is made of the old file
again when it is asked for: its layer is rebuilt, and stays until another one is asked for, since the tensors of a layer
are asked for one after the other. So what is held is one layer and a fixed number of bytes, however large the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from lastcli.containers.base import TensorInfo, TensorSource

__all__ = ["KEPT_BYTES", "SMALL", "Remade"]

KEPT_BYTES = 2**25
SMALL = 2**16

Tensors = Mapping[str, np.ndarray | None]


class Remade:
    """The new tensors of all layers.

    Args:
        make: the number of a layer → its new tensors; the same ones whenever it is called.
    """

    def __init__(self, make: Callable[[int], Tensors]) -> None:
        self._make = make
        self._held = 0
        self._last: tuple[int, Tensors] = (-1, {})

    def layer(self, index: int) -> dict[str, TensorSource | None]:
        """What becomes of the tensors of a layer; None where one goes."""
        return {name: self._source(index, name, array) for name, array in self._tensors(index).items()}

    def _source(self, index: int, name: str, array: np.ndarray | None) -> TensorSource | None:
        if array is None:
            return None
        if array.nbytes <= SMALL or self._held + array.nbytes <= KEPT_BYTES:
            self._held += array.nbytes
            return TensorSource.of(name, array)
        return TensorSource(TensorInfo.of(name, array), partial(self._again, index, name))

    def _again(self, index: int, name: str) -> np.ndarray:
        array = self._tensors(index)[name]
        if array is None:
            raise RuntimeError(f"{name} was a tensor before")
        return array

    def _tensors(self, index: int) -> Tensors:
        if self._last[0] != index:
            self._last = (-1, {})  # let go of the one before the next is made
            self._last = (index, self._make(index))
        return self._last[1]
