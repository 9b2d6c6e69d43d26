"""Reading orbax checkpoints without orbax: the tree from `_METADATA`, the arrays through TensorStore.

Written against orbax-checkpoint 0.11 and 0.12 (StandardCheckpointer, PyTreeCheckpointer, CheckpointManager), whose
arrays are zarr (version 2 or 3), each in a folder of its own or all in one OCDBT key-value store. Shapes and dtypes
are those of the arrays' own metadata, never of what a caller expects.

Not through orbax, which imports JAX (`last inspect` would wait seconds for it), restores an unfinished folder without
a word, and hands out the whole tree at once. The arrays come from TensorStore, as orbax's do. It would give zeros for
a chunk that is not there and does not notice every flipped byte: missing chunks are made errors here, and for
checkpoints that `last` wrote the digest of every tensor is compared.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lastcli.containers.base import Reader, TensorInfo
from lastcli.containers.dtypes import ITEMSIZE, safe_nbytes
from lastcli.containers.inputs import shown
from lastcli.containers.optimizer import drop_optimizer
from lastcli.containers.orbax.layout import TREE_FILE, find_items, read_json
from lastcli.containers.orbax.store import Store
from lastcli.containers.structure import merged, take_metadata
from lastcli.containers.tree import flatten
from lastcli.errors import InputError

__all__ = ["OrbaxReader"]

_EMPTY: dict[str, Any] = {"None": None, "Dict": {}, "List": [], "Tuple": (), "NamedTuple": ()}
_MAX_DEPTH = 100


class _Array:
    """A leaf of the tree that is an array: which store, which parameter name."""

    def __init__(self, store: Store, parameter: str, info: TensorInfo) -> None:
        self.store, self.parameter, self.info = store, parameter, info


class OrbaxReader(Reader):
    """An orbax checkpoint folder."""

    def __init__(self, path: Path) -> None:
        """Read the tree and the arrays' metadata.

        Raises:
            InputError: the checkpoint is unfinished, damaged, or of a kind that is not read here.
        """
        where = shown(path, 1000)
        items = find_items(path)
        trees: dict[str, Any] = {name: _Item(folder).tree() for name, folder in items.folders.items()}
        # the name of a single item says nothing of the model, nor does that of one whose optimizer lay beside it
        tree = next(iter(trees.values())) if len(trees) == 1 else trees
        dropped = drop_optimizer(tree, lambda leaf: leaf.info if isinstance(leaf, _Array) else None)
        if tree is trees and len(trees) == 1:
            tree = next(iter(trees.values()))
        flat = flatten(tree, lambda leaf: isinstance(leaf, _Array), where)
        self._arrays: dict[str, _Array] = flat.leaves
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in items.custom.items()}
        metadata, extras = take_metadata(texts, where)
        tensors = {
            name: TensorInfo(name, leaf.info.shape, leaf.info.dtype, leaf.info.nbytes)
            for name, leaf in self._arrays.items()
        }
        super().__init__(path, "orbax", tensors, metadata, merged(flat.extras, extras), (*items.notes, *dropped))

    def load(self, name: str) -> np.ndarray:
        """See `Reader.load`."""
        leaf = self._arrays[name]
        return leaf.store.read(leaf.parameter, leaf.info)


class _Item:
    """One folder with a `_METADATA`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._where = shown(folder / TREE_FILE, 1000)
        document = read_json(folder / TREE_FILE)
        entries = document.get("tree_metadata")
        if not isinstance(entries, dict):
            raise InputError(f"{self._where} has no tree_metadata; the checkpoint is damaged.")
        self._entries: dict[str, Any] = entries
        self._store = Store(
            folder,
            ocdbt=document.get("use_ocdbt", (folder / "manifest.ocdbt").exists()) is True,
            zarr3=document.get("use_zarr3") is True,
            complete=document.get("store_array_data_equal_to_fill_value") is True,
        )
        strings = folder / "_strings.json"
        self._strings = read_json(strings) if strings.is_file() else {}

    def tree(self) -> dict[str, Any]:
        """Dicts, lists, `_Array` leaves and plain values."""
        root: dict[str, Any] = {}
        sequences: set[tuple[str, ...]] = set()
        for key, entry in self._entries.items():
            path, kinds = self._path(key, entry)
            sequences.update(path[:depth] for depth, kind in enumerate(kinds) if kind == 1)
            node = root
            for part in path[:-1]:
                node = node.setdefault(part, {})
                if not isinstance(node, dict):
                    raise InputError(f"{self._where}: '{shown(key)}' lies below a leaf; the checkpoint is damaged.")
            if path[-1] in node:
                raise InputError(f"{self._where} has '{shown(key)}' twice; the checkpoint is damaged.")
            node[path[-1]] = self._leaf(path, entry["value_metadata"])
        return _with_lists(root, (), sequences)

    def _path(self, key: str, entry: Any) -> tuple[tuple[str, ...], list[Any]]:
        steps = entry.get("key_metadata") if isinstance(entry, dict) else None
        value = entry.get("value_metadata") if isinstance(entry, dict) else None
        sound = isinstance(steps, list) and 0 < len(steps) <= _MAX_DEPTH and isinstance(value, dict)
        if not sound or not all(isinstance(step, dict) and isinstance(step.get("key"), str) for step in steps or []):
            raise InputError(f"{self._where}: the entry '{shown(key)}' is damaged.")
        return tuple(step["key"] for step in steps or []), [step.get("key_type") for step in steps or []]

    def _leaf(self, path: tuple[str, ...], value: dict[str, Any]) -> Any:
        kind = value.get("value_type")
        name = ".".join(path)
        if kind in _EMPTY:
            return copy.copy(_EMPTY[kind])
        if kind == "string":
            if not isinstance(self._strings.get(name), str):
                raise InputError(f"{self._where}: the text '{shown(name)}' is missing; the checkpoint is damaged.")
            return self._strings[name]
        if kind not in ("jax.Array", "np.ndarray", "scalar"):
            raise InputError(f"{self._where}: '{shown(name)}' is of type {shown(kind)}, which last does not read.")
        info = self._info(name, value.get("write_shape"))
        if kind == "scalar" and info.shape == () and info.dtype in ("int64", "float64", "bool"):
            return self._store.read(name, info).item()
        return _Array(self._store, name, info)

    def _info(self, name: str, write_shape: Any) -> TensorInfo:
        """Shape and dtype from the array's own metadata, held against what the tree says of it."""
        if PurePosixPath(name).is_absolute() or ".." in name.split("/") or "\0" in name:
            raise InputError(f"{self._where}: '{shown(name)}' leads out of the checkpoint; do not use it.")
        shape, dtype = self._store.describe(name)
        if dtype not in ITEMSIZE:
            raise InputError(
                f"{self._where}: tensor '{shown(name)}' has dtype {shown(dtype)}, which last does not support."
            )
        nbytes = safe_nbytes(shape, dtype)
        if nbytes is None:
            raise InputError(f"{self._where}: tensor '{shown(name)}' declares the impossible shape {shown(shape)}.")
        if isinstance(write_shape, list) and (
            len(write_shape) != len(shape)
            or not all(type(part) is int and 0 < part <= axis for part, axis in zip(write_shape, shape))
        ):
            raise InputError(
                f"{self._where}: tensor '{shown(name)}' was written in pieces of {shown(write_shape)}, which do not "
                f"fit its shape {shown(shape)}; the checkpoint is damaged."
            )
        self._store.check_chunks(name, shape)
        return TensorInfo(name, shape, dtype, nbytes)


def _with_lists(node: Any, path: tuple[str, ...], sequences: set[tuple[str, ...]]) -> Any:
    """The tree with the nodes that were sequences as lists again."""
    if not isinstance(node, dict):
        return node
    children = {key: _with_lists(value, (*path, key), sequences) for key, value in node.items()}
    indices = [str(index) for index in range(len(children))]
    if path and path in sequences and set(children) == set(indices):
        return [children[index] for index in indices]
    return children
