"""An array that stays on disk: rows are read when somebody indexes it, so that memory does not grow with a file.

Read by position and not mapped: a mapped file that is cut short while it is open ends the process with SIGBUS, and its
pages count as the process's own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lastcli.evaluation.readers.base import DataFile

__all__ = ["Array", "StoredArray", "rows_of"]


class StoredArray:
    """Rows of a C-ordered array in a file; the caller has checked that its bytes lie inside the file.

    It has `shape`, `dtype`, `ndim` and `nbytes`; `stored[index]` reads and gives a plain array. `stored[..., None]` and
    `rows_of` read nothing.

    Args:
        file: where it is.
        offset: of its first byte.
        shape: with the rows along the first axis.
        dtype: as stored; what is read has native byte order.
        what: for messages.
        rows: which rows of the file it shows, None for all.
    """

    def __init__(
        self,
        file: DataFile,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        what: str,
        rows: np.ndarray | None = None,
    ) -> None:
        self._file, self._offset, self._what, self._rows = file, offset, what, rows
        self._stored = dtype
        self.shape = shape
        self.dtype = dtype.newbyteorder("=")

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and len(key) == 2 and key[0] is Ellipsis and key[1] is None:
            return StoredArray(self._file, self._offset, (*self.shape, 1), self._stored, self._what, self._rows)
        if isinstance(key, tuple) and key[0] is not Ellipsis:
            rows = self[key[0]]
            return rows[key[1:]] if isinstance(key[0], (int, np.integer)) else rows[(slice(None), *key[1:])]
        if isinstance(key, (int, np.integer)):
            return self._read(self._numbers(np.array([key])))[0]
        if isinstance(key, slice):
            return self._read(self._numbers(np.arange(*key.indices(len(self)))))
        if isinstance(key, np.ndarray | list):
            index = np.asarray(key)
            return self._read(self._numbers(np.flatnonzero(index) if index.dtype == bool else index))
        return self[:][key]

    def rows(self, index: slice | np.ndarray) -> StoredArray:
        """Some of the rows, still on disk."""
        numbers = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        shape = (len(numbers), *self.shape[1:])
        return StoredArray(self._file, self._offset, shape, self._stored, self._what, self._numbers(numbers))

    def _numbers(self, index: np.ndarray) -> np.ndarray:
        """Rows of the file for rows of this view."""
        index = np.where(index < 0, index + len(self), index)
        if index.size and not (index.min() >= 0 and index.max() < len(self)):
            raise IndexError(f"row {int(index.max())} of {len(self)}")
        return index if self._rows is None else self._rows[index]

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        found = np.empty((len(numbers), *self.shape[1:]), self._stored)
        if found.nbytes:
            size = found.nbytes // len(numbers)
            view = found.reshape(-1).view(np.uint8).data
            # one call for each run of rows that lie behind one another
            cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
            for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(numbers)]):
                begin = self._offset + int(numbers[start]) * size
                self._file.read_into(view[start * size : stop * size], begin, self._what)
        return found.astype(self.dtype, copy=False)


Array = np.ndarray | StoredArray


def rows_of(array: Any, index: slice | np.ndarray) -> Any:
    """Some of the examples of an array, None for None; what is on disk stays there."""
    if array is None:
        return None
    return array.rows(index) if isinstance(array, StoredArray) else array[index]
