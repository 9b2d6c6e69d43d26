"""The second moments of all layers, of which no more are in memory than fit.

Those of a layer grow with the square of its states: 64 layers of 1,024 take gigabytes. Beyond `KEPT_BYTES` they lie in
a temporary folder, and those of a layer are read back when its turn comes.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lastcli.errors import OutputError

__all__ = ["KEPT_BYTES", "LayerMoments", "size_of"]

# What stays in memory, of all layers together.
KEPT_BYTES = 512 << 20


class LayerMoments(Sequence[Any]):
    """Moments by the number of the layer; what an engine calls its moments is a pytree of arrays.

    Threads may ask for those of different layers at a time.

    Args:
        layers: how many there are.
        make: gives those of a layer when they are first asked for, unless others were put here before.
    """

    def __init__(self, layers: int, make: Callable[[int], Any]) -> None:
        self._layers, self._make = layers, make
        self._here: dict[int, Any] = {}
        self._forms: dict[int, Any] = {}
        self._folder: Path | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._layers

    def __getitem__(self, layer: Any) -> Any:
        if not 0 <= layer < self._layers:
            raise IndexError(layer)
        if layer in self._here:
            return self._here[layer]
        if layer in self._forms:
            return self._read(layer)
        moments = self._make(layer)
        self.put(layer, moments)
        return moments

    def __iter__(self) -> Iterator[Any]:
        return (self[layer] for layer in range(self._layers))

    def put(self, layer: int, moments: Any) -> None:
        """Keep the moments of a layer, in place of those it had.

        Raises:
            OutputError: they do not fit into memory, and the temporary folder cannot take them.
        """
        with self._lock:
            self._here.pop(layer, None)
            if size_of(moments) + sum(map(size_of, self._here.values())) <= KEPT_BYTES:
                self._here[layer] = moments
                return
            place = self._file(layer)
        arrays, form = jax.tree.flatten(moments)
        try:
            with place.open("wb") as file:
                for array in arrays:
                    np.save(file, np.asarray(array), allow_pickle=False)
        except OSError as error:
            raise OutputError(
                f"The second moments of {self._layers} layers do not fit into memory and cannot be kept in "
                f"{tempfile.gettempdir()}: {error.strerror or error}; set TMPDIR to a folder with room for "
                f"{self._layers * size_of(moments) >> 20} MiB."
            ) from error
        self._forms[layer] = form

    def _read(self, layer: int) -> Any:
        form = self._forms[layer]
        with self._file(layer).open("rb") as file:
            return jax.tree.unflatten(form, [np.load(file, allow_pickle=False) for _ in range(form.num_leaves)])

    def _file(self, layer: int) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="last-moments-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / str(layer)


def size_of(moments: Any) -> int:
    """Bytes of the arrays of moments."""
    return sum(np.asarray(array).nbytes for array in jax.tree.leaves(moments))
