"""Writing orbax checkpoints, one tensor at a time: a PyTree item that orbax's Standard and PyTree handlers restore.

Every tensor is an uncompressed zarr 2 array in a folder of its own (the form orbax writes with `use_ocdbt=False`), so
that neither orbax nor JAX has to hold the tree. Arrays are marked as NumPy arrays: they restore on any device, or
into the sharding of the target given to orbax. The metadata, and a digest of every tensor, are the checkpoint's custom
metadata.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.base import TensorInfo, TensorSource
from lastcli.containers.digests import DIGESTS_KEY, raw
from lastcli.containers.dtypes import EXTENDED, dtype_of
from lastcli.containers.inputs import is_unicode, shown
from lastcli.containers.jobs import Job
from lastcli.containers.orbax.layout import CHECKPOINT_FILE, COMMIT_FILE, TREE_FILE
from lastcli.errors import OutputError

__all__ = ["MAX_CHUNK", "write_orbax"]

MAX_CHUNK = 2**30
"""The largest chunk in bytes; a larger tensor is cut along its first axis."""

_HANDLER = "orbax.checkpoint._src.handlers.standard_checkpoint_handler.StandardCheckpointHandler"
_RESERVED = {"d", TREE_FILE, CHECKPOINT_FILE, COMMIT_FILE, "_strings.json", "_sharding", "array_metadatas"}
_UNKNOWN_TO_TENSORSTORE = {"float8_e8m0fnu"}
_SEQUENCE, _DICT = 1, 2


def write_orbax(temp: Path, job: Job) -> None:
    """Write the tree of the names into the folder `temp`.

    Raises:
        OutputError: the names make no tree, or cannot be folder names.
    """
    writer = _Writer(temp, job)
    for path, kinds, value in _leaves(job.tree(), (), ()):
        writer.leaf(path, kinds, value)
    writer.close({**job.text, DIGESTS_KEY: job.digests_text()})


def _leaves(
    node: Any, path: tuple[str, ...], kinds: tuple[int, ...]
) -> Iterator[tuple[tuple[str, ...], tuple[int, ...], Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, (*path, str(key)), (*kinds, _DICT))
    elif isinstance(node, list) and node:
        for index, value in enumerate(node):
            yield from _leaves(value, (*path, str(index)), (*kinds, _SEQUENCE))
    elif path:
        yield path, kinds, node


class _Writer:
    def __init__(self, folder: Path, job: Job) -> None:
        self._folder, self._job = folder, job
        self._entries: dict[str, Any] = {}
        self._strings: dict[str, str] = {}
        self._names: set[str] = set()
        self._started = time.time_ns()

    def leaf(self, path: tuple[str, ...], kinds: tuple[int, ...], value: Any) -> None:
        """Write one leaf and note it in the tree."""
        name = self._name(path)
        if isinstance(value, TensorSource):
            if value.info.dtype in _UNKNOWN_TO_TENSORSTORE:
                raise OutputError(
                    f"{self._job.where}: orbax cannot hold tensor '{shown(value.info.name)}' of dtype "
                    f"{value.info.dtype}; write a .safetensors file instead."
                )
            self._array(name, value.info, self._job.load(value))
            kind = "np.ndarray"
        elif isinstance(value, str):
            self._strings[name] = value
            kind = "string"
        elif value is None or isinstance(value, dict | list | tuple):
            kind = "None" if value is None else {dict: "Dict", list: "List", tuple: "Tuple"}[type(value)]
        else:
            array = np.asarray(value, {bool: "bool", int: "int64", float: "float64"}[type(value)])
            self._array(name, TensorInfo(name, (), array.dtype.name, array.nbytes), array)
            kind = "scalar"
        self._entries[str(path)] = {
            "key_metadata": [{"key": key, "key_type": number} for key, number in zip(path, kinds)],
            "value_metadata": {"value_type": kind, "skip_deserialize": kind in ("None", "Dict", "List", "Tuple")},
        }

    def close(self, custom: dict[str, Any]) -> None:
        """Write the metadata, the commit marker last."""
        tree = {
            "tree_metadata": self._entries,
            "use_ocdbt": False,
            "use_zarr3": False,
            "store_array_data_equal_to_fill_value": True,
            "custom_metadata": None,
        }
        checkpoint = {
            "item_handlers": _HANDLER,
            "metrics": {},
            "performance_metrics": {},
            "init_timestamp_nsecs": self._started,
            "commit_timestamp_nsecs": time.time_ns(),
            "custom_metadata": custom,
        }
        if self._strings:
            self._json("_strings.json", self._strings)
        self._json(TREE_FILE, tree)
        self._json(CHECKPOINT_FILE, checkpoint)
        (self._folder / COMMIT_FILE).write_text("Checkpoint commit was successful\n")

    def _json(self, name: str, document: dict[str, Any]) -> None:
        (self._folder / name).write_text(json.dumps(document), encoding="utf-8")

    def _name(self, path: tuple[str, ...]) -> str:
        """The parameter name, which is also the folder's."""
        name = ".".join(path)
        sound = name and not name.startswith(".") and name not in _RESERVED and not name.startswith("ocdbt.process_")
        if not sound or any(bad in name for bad in ("/", "\0")) or len(name.encode("utf-8", "replace")) > 255:
            raise OutputError(
                f"{self._job.where}: '{shown(name)}' cannot be the name of a tensor in an orbax folder; write a "
                ".safetensors or .msgpack file instead."
            )
        if not is_unicode(name):
            raise OutputError(f"{self._job.where}: the name '{shown(name)}' is not valid Unicode text; rename it.")
        if name in self._names:
            raise OutputError(
                f"{self._job.where}: two tensors would both be the orbax parameter '{shown(name)}'; rename one."
            )
        self._names.add(name)
        return name

    def _array(self, name: str, info: TensorInfo, array: np.ndarray) -> None:
        folder = self._folder / name
        folder.mkdir()
        dtype = dtype_of(info.dtype)
        row = max(1, math.prod(info.shape[1:]) * dtype.itemsize)
        rows = max(1, min(info.shape[0], MAX_CHUNK // row)) if info.shape else 1
        description = {
            "chunks": [rows, *(max(1, axis) for axis in info.shape[1:])] if info.shape else [],
            "compressor": None,
            "dimension_separator": ".",
            "dtype": info.dtype if info.dtype in EXTENDED else dtype.str,
            "fill_value": None,
            "filters": None,
            "order": "C",
            "shape": list(info.shape),
            "zarr_format": 2,
        }
        (folder / ".zarray").write_text(json.dumps(description, separators=(",", ":")))
        if not info.shape:
            (folder / "0").write_bytes(raw(array))
            return
        rest = "".join(".0" for _ in info.shape[1:])
        for number, start in enumerate(range(0, info.shape[0] if info.nbytes else 0, rows)):
            piece = raw(array[start : start + rows])
            with (folder / f"{number}{rest}").open("xb") as file:
                file.write(piece)
                # zarr chunks are all of one size; the last is filled up
                file.truncate(rows * row)
