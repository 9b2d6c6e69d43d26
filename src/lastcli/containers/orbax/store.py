"""The arrays of one orbax item: their metadata and their bytes, through TensorStore."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.base import TensorInfo
from lastcli.containers.inputs import read_small, shown
from lastcli.errors import InputError
from lastcli.mappings import parse_json

__all__ = ["Store"]

_MAX_ARRAY_METADATA = 2**24
_CHUNK = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})*")
_FAULTS = (ValueError, TypeError, OSError, RuntimeError, NotImplementedError, MemoryError, KeyError)


class Store:
    """Arrays by parameter name (the path joined with ".")."""

    def __init__(self, folder: Path, *, ocdbt: bool, zarr3: bool, complete: bool) -> None:
        """Remember how the arrays are stored.

        Args:
            folder: the item's folder.
            ocdbt: one key-value store for all arrays instead of a folder each.
            zarr3: zarr version 3 instead of 2.
            complete: every chunk was written, so that a missing one is damage and not a run of zeros.
        """
        self._folder, self._ocdbt, self._zarr3, self._complete = folder, ocdbt, zarr3, complete
        self._where = shown(folder, 1000)
        self._keys: Any = None

    def describe(self, name: str) -> tuple[tuple[int, ...], str]:
        """Shape and dtype name from the array's own metadata.

        Raises:
            InputError: missing or damaged.
        """
        what = f"{self._where}: the metadata of tensor '{shown(name)}'"
        file = "zarr.json" if self._zarr3 else ".zarray"
        if not self._ocdbt:
            return _parse(read_small(self._folder / name / file, _MAX_ARRAY_METADATA), what)
        try:
            if self._keys is None:
                import tensorstore

                self._keys = tensorstore.KvStore.open(self._ocdbt_store("")).result()
            found = self._keys.read(f"{name}/{file}").result()
        except _FAULTS as error:
            raise InputError(f"{what} cannot be read ({_first_line(error)}); the checkpoint is damaged.") from error
        if found.state != "value":
            raise InputError(f"{what} is missing; the checkpoint is damaged, copy the whole folder again.")
        return _parse(found.value, what)

    def check_chunks(self, name: str, shape: tuple[int, ...]) -> None:
        """Hold an array's chunks against its shape, where they are files of their own.

        Raises:
            InputError: they are larger than the shape, or lie beyond it: it is not the shape that was written.
        """
        if self._ocdbt or self._zarr3:
            return
        what = f"{self._where}: the metadata of tensor '{shown(name)}'"
        chunks = parse_json(read_small(self._folder / name / ".zarray", _MAX_ARRAY_METADATA), what).get("chunks")
        if not _counts(chunks) or len(chunks) != len(shape) or any(c > max(a, 1) for c, a in zip(chunks, shape)):
            raise InputError(f"{what} has chunks that do not fit its shape; the checkpoint is damaged.")
        grid = [-(-axis // chunk) for axis, chunk in zip(shape, chunks)]
        for item in (self._folder / name).iterdir():
            if _CHUNK.fullmatch(item.name):
                place = [int(part) for part in item.name.split(".")]
                if shape and (len(place) != len(grid) or any(at >= count for at, count in zip(place, grid))):
                    raise InputError(f"{what} has a chunk beyond its shape; the checkpoint is damaged.")

    def read(self, name: str, info: TensorInfo) -> np.ndarray:
        """An array's bytes.

        Raises:
            InputError: they are missing or damaged, or not of the described shape and dtype.
        """
        what = f"{self._where}: tensor '{shown(name)}'"
        store = self._ocdbt_store(f"{name}/") if self._ocdbt else _file_store(self._folder / name)
        spec = {
            "driver": "zarr3" if self._zarr3 else "zarr",
            "kvstore": store,
            "fill_missing_data_reads": not self._complete,
            # nothing is read twice
            "recheck_cached_data": False,
        }
        try:
            import tensorstore

            array = np.asarray(tensorstore.open(spec, open=True, read=True).result().read(order="C").result())
        except _FAULTS as error:
            raise InputError(f"{what} cannot be read ({_first_line(error)}); the checkpoint is damaged.") from error
        if array.shape != info.shape or array.dtype.name != info.dtype:
            raise InputError(
                f"{what} reads as {array.dtype.name} {array.shape}, but is described as {info.dtype} {info.shape}; "
                "the checkpoint is damaged."
            )
        return np.asarray(array, order="C")

    def _ocdbt_store(self, prefix: str) -> dict[str, Any]:
        return {"driver": "ocdbt", "base": _file_store(self._folder), "path": prefix}


def _file_store(folder: Path) -> dict[str, Any]:
    return {"driver": "file", "path": f"{folder.resolve()}/"}


def _first_line(error: BaseException) -> str:
    return shown(str(error).split("\n", 1)[0].split(" [", 1)[0], 200)


def _parse(data: bytes, what: str) -> tuple[tuple[int, ...], str]:
    """Shape and dtype name from a `.zarray` (zarr 2) or `zarr.json` (zarr 3)."""
    document = parse_json(data, what)
    shape = document.get("shape") if isinstance(document, dict) else None
    if not isinstance(shape, list) or not all(type(axis) is int and axis >= 0 for axis in shape):
        raise InputError(f"{what} has no sound shape; the checkpoint is damaged.")
    return tuple(shape), _dtype_name(document.get("data_type", document.get("dtype")))


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(axis) is int and axis > 0 for axis in value)


def _dtype_name(code: Any) -> str:
    """NumPy's or ml_dtypes' name of a zarr dtype; what is unknown comes back as it stands."""
    if isinstance(code, str) and code[:1] in ("<", "|") and code[1:2] in "biufc":
        try:
            return np.dtype(code).name
        except TypeError:
            return code
    return str(code)
