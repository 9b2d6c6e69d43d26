"""Arrays that are computed when somebody computes with them, so that the layers of a model need not lie in memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["KEPT_BYTES", "Deferred", "picked"]

KEPT_BYTES = 2**26
"""Values of so many bytes in all are kept between two uses, those used last."""

# In the order of their last use. What is dropped is computed again when it is used again.
# Threads share it.
_LOCK = threading.Lock()
_kept: weakref.WeakKeyDictionary[Deferred, np.ndarray] = weakref.WeakKeyDictionary()


class Deferred:
    """An array by its shape and dtype; NumPy and JAX ask for its values where they compute with it.

    Args:
        shape: of the values.
        dtype: of the values.
        load: gives them; called again whenever they are asked for and no longer kept.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], load: Callable[[], np.ndarray]):
        self.shape, self.dtype, self._load = shape, dtype, load

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def T(self) -> np.ndarray:
        """The values with their axes in reverse order."""
        return np.asarray(self).T

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values; see `numpy.asarray`."""
        return np.array(self._values(), dtype, copy=copy)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self)[index]

    def _values(self) -> np.ndarray:
        with _LOCK:
            array = _kept.pop(self, None)
        if array is None:
            array = self._load()
        with _LOCK:
            _kept[self] = array
            total = sum(kept.nbytes for kept in _kept.values())
            while total > KEPT_BYTES and len(_kept) > 1:
                total -= _kept.pop(next(iter(_kept.keys()))).nbytes
        return array


def picked(array: Any, index: tuple[Any, ...]) -> Any:
    """`array[index]`, of a deferred array deferred again; None of None.

    Args:
        index: arrays of integers and slices, as many as pick along the first axes.
    """
    if not isinstance(array, Deferred):
        return None if array is None else np.asarray(array)[index]
    shape = np.broadcast_to(np.empty((), bool), array.shape)[index].shape
    return Deferred(shape, array.dtype, lambda: np.asarray(array)[index])
