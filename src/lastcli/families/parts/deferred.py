"""Large arrays of a file that are read when somebody computes with them, so that a model need not lie in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lastcli.families.base import Read

__all__ = ["LARGE", "Deferred", "deferred"]

LARGE = 2**20
"""Arrays of more bytes are deferred."""


class Deferred:
    """An array by its shape and dtype; NumPy and JAX read it where they compute with it, and then it is kept."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], load: Callable[[], np.ndarray]):
        self.shape, self.dtype, self._load = shape, dtype, load
        self._array: np.ndarray | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values; see `numpy.asarray`."""
        if self._array is None:
            self._array = self._load()
        return np.array(self._array, dtype, copy=copy)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self)[index]


def deferred(read: Read, name: str, made: Callable[[np.ndarray], np.ndarray]) -> Any:
    """`made` of a tensor: as an array, or if it is large deferred. It is read once to learn its shape.

    Args:
        made: of the stored array, what is computed with.
    """
    array = made(read(name))
    if array.nbytes <= LARGE:
        return array
    return Deferred(array.shape, array.dtype, lambda: made(read(name)))
