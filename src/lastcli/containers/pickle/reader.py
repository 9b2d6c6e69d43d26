"""Reading plain pickles and joblib files: trees of NumPy and JAX arrays, or a state_dict that was pickled as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.base import Reader, TensorInfo
from lastcli.containers.container import IsModel
from lastcli.containers.dtypes import ITEMSIZE
from lastcli.containers.extras import representable
from lastcli.containers.inputs import RandomAccess, shown
from lastcli.containers.optimizer import drop_optimizer
from lastcli.containers.pickle.arrays import behind
from lastcli.containers.pickle.compressed import is_compressed, unpacked
from lastcli.containers.pickle.foreign import Foreign, kinds_in
from lastcli.containers.pickle.machine import run
from lastcli.containers.pickle.settings import settings_in
from lastcli.containers.pickle.stream import Stream
from lastcli.containers.pickle.values import Access, Memory, Record, Tensor, Unread, load
from lastcli.containers.sidecar import sidecar_metadata
from lastcli.containers.structure import merged, take_metadata
from lastcli.containers.torch.models import check_size
from lastcli.containers.torch.reader import StateDictReader, is_tensor, meanings, opened_note
from lastcli.containers.tree import flatten
from lastcli.errors import InputError

__all__ = ["TreeReader", "open_pickle"]


def open_pickle(path: Path, name: str | None = None, is_model: IsModel | None = None) -> Reader:
    """A pickle, compressed or not.

    Raises:
        InputError: it is damaged, asks for more than a checkpoint needs, or has no named tensors.
        UsageError: several models and none of them named, or the named one is not there.
    """
    file = RandomAccess(path)
    try:
        where = shown(path, 1000)
        if file.size == 0:
            raise InputError(f"{where} is empty; copy it again.")
        access: Access = file
        if is_compressed(file.read(0, min(file.size, 8), "its beginning")):
            access = Memory(unpacked(file))
        stream = Stream(access)

        def built(record: Record, stream: Stream) -> None:
            behind(record, stream, lambda inner: run(inner, where))

        raw = run(stream, where, built=built)
        rest = stream.left
        if _has_torch(meanings(where)[1].value(raw)):
            reader: Reader = StateDictReader(path, "pickle", file, raw, name, is_model)
        else:
            reader = TreeReader(path, file, raw, name)
        if rest:
            more = f"{rest:,} bytes behind the first pickle of the file are not read."
            reader.dropped = (*reader.dropped, more)
        return reader
    except BaseException:
        file.close()
        raise


def _has_torch(value: Any) -> bool:
    """Whether a tensor of PyTorch is among the values."""
    stack, seen = [value], set[int]()
    while stack:
        item = stack.pop()
        if isinstance(item, Tensor) and not item.numpy:
            return True
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
    return False


class TreeReader(Reader):
    """A tree of arrays by the names of its branches, as flax, haiku and NumPy users pickle one.

    Args:
        path: the file.
        file: the open file, closed with the reader.
        raw: what its pickle holds.
        name: what the user calls the model meant; told apart by whoever knows models.
    """

    def __init__(self, path: Path, file: RandomAccess, raw: Any, name: str | None) -> None:
        """Name the leaves.

        Raises:
            InputError: there are none.
        """
        self._file, where = file, shown(path, 1000)
        foreign = Foreign()
        tree: dict[Any, Any] = {}
        opened: list[str] = []
        for meaning in meanings(where):
            value = meaning.value(raw)
            check_size(value, where)
            foreign = Foreign()
            tree = _plain(dict(enumerate(value)) if isinstance(value, list | tuple) else value, (), foreign)
            if isinstance(tree, dict) and _count(tree):
                break
            opened = [opened_note(raw)]
        if not isinstance(tree, dict) or not _count(tree):
            kinds, _ = kinds_in(raw)
            held = ", ".join(f"'{shown(kind, 80)}'" for kind in list(kinds)[:4])
            what = f" (it holds {held}, of which nothing is built or run)" if kinds else ""
            raise InputError(f"{where} has no tensors in named dictionaries{what}; save the parameters as one.")
        # what is not read is refused below by its name, unless it goes with an optimizer
        dropped = drop_optimizer(tree, lambda leaf: _info("", leaf, where) if _is_read(leaf) else None)
        flat = flatten(tree, is_tensor, where)
        metadata, more = take_metadata(sidecar_metadata(path, "pickle"), where)
        tensors = {key: _info(key, leaf, where) for key, leaf in flat.leaves.items()}
        note = foreign.note
        super().__init__(
            path,
            "pickle",
            tensors,
            metadata,
            merged(flat.extras, more),
            (*dropped, *opened, *([note] if note else [])),
        )
        self._leaves: Mapping[str, Tensor] = flat.leaves
        self.asked = name
        self.settings = settings_in(raw)

    def load(self, name: str) -> np.ndarray:
        """See `Reader.load`."""
        return load(self._leaves[name], f"tensor '{shown(name)}'")

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _plain(value: Any, path: tuple[str, ...], foreign: Foreign) -> Any:
    """A tree of dictionaries, lists and leaves; what is none of them is noted and left out (None in a list)."""
    if isinstance(value, dict):
        kept: dict[Any, Any] = {}
        for key, item in value.items():
            here = (*path, str(key))
            if type(key) not in (str, int) or _is_foreign(item):
                foreign.add("/".join(here), key if type(key) not in (str, int) else item)
            else:
                kept[key] = _plain(item, here, foreign)
        return kept
    if isinstance(value, list | tuple) and not representable(value):
        found = []
        for index, item in enumerate(value):
            here = (*path, str(index))
            if _is_foreign(item):
                foreign.add("/".join(here), item)
            found.append(None if _is_foreign(item) else _plain(item, here, foreign))
        return found
    return value


def _is_foreign(value: Any) -> bool:
    return not isinstance(value, dict | list | tuple | Tensor | Unread) and not representable(value)


def _count(tree: Any) -> int:
    if is_tensor(tree):
        return 1
    if isinstance(tree, dict):
        return sum(map(_count, tree.values()))
    return sum(map(_count, tree)) if isinstance(tree, list) else 0


def _is_read(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in ITEMSIZE


def _info(name: str, tensor: Tensor | Unread, where: str) -> TensorInfo:
    if isinstance(tensor, Unread) or not _is_read(tensor):
        kind = tensor.kind if isinstance(tensor, Unread) else tensor.dtype
        raise InputError(f"{where}: tensor '{shown(name)}' is {shown(kind)}, which last does not read; save it as one.")
    return TensorInfo(name, tensor.shape, tensor.dtype, tensor.size * ITEMSIZE[tensor.dtype])
