"""The format before PyTorch 1.6: five pickles one after the other, then the bytes of every storage.

The pickles are a magic number, a version, what the writing system was, the object, and the keys of the storages in the
order of their bytes; before the bytes of each stands how many elements it has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lastcli.containers.inputs import shown
from lastcli.containers.pickle.arrays import NotKnown
from lastcli.containers.pickle.machine import run
from lastcli.containers.pickle.stream import Stream
from lastcli.containers.pickle.tensors import itemsize
from lastcli.containers.pickle.values import Access, Global, Memory, Span, Storage
from lastcli.containers.torch.archive import named_storage
from lastcli.errors import InputError

__all__ = ["MAGIC", "nested_storage", "read_legacy"]

MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001


@dataclass
class _Storages:
    """What the object refers to; views into a storage wait until it is known where that lies."""

    found: dict[str, Storage] = field(default_factory=dict)
    views: list[tuple[Storage, str, int]] = field(default_factory=list)

    def refer(self, pid: Any) -> Any:
        """What a reference stands for: a storage, or the class of a module saved with its source."""
        if type(pid) is tuple and len(pid) > 1 and pid[0] == "module" and isinstance(pid[1], Global):
            return pid[1]
        key, storage = named_storage(pid)
        storage = self.found.setdefault(key, storage)
        view = pid[5] if len(pid) > 5 else None
        if view is None:
            return storage
        name, offset, count = view
        if type(name) is not str or type(offset) is not int or type(count) is not int or offset < 0 or count < 0:
            raise ValueError("a view of a storage that is damaged")
        whole = max(pid[4], 1)
        size = storage.nbytes // whole
        part = Storage(storage.dtype, count * size)
        self.views.append((part, key, offset * size))
        return part


def read_legacy(access: Access, where: str, start: int = 0, end: int | None = None) -> Any:
    """What the object of the file holds, as `pickle.machine` reads it.

    Raises:
        InputError: it is damaged, or not such a file.
    """
    stream, storages = Stream(access, start, end), _Storages()
    if run(stream, where) != MAGIC or run(stream, where) != _VERSION:
        raise InputError(f"{where} is not a torch file; it is damaged or has the wrong suffix.")
    system = run(stream, where)
    swapped = type(system) is dict and system.get("little_endian") is False
    value = run(stream, where, persistent=storages.refer)
    keys = run(stream, where)
    if type(keys) is not list or not all(type(key) is str for key in keys) or not storages.found.keys() <= set(keys):
        raise InputError(f"{where} cannot be loaded: it does not say where its storages lie; it is damaged.")
    for key in keys:
        _place(storages.found.get(key), key, stream, swapped, where)
    for part, key, offset in storages.views:
        whole = storages.found[key]
        if offset + part.nbytes > whole.nbytes:
            raise _short(key, where)
        part.access, part.offset, part.swapped = whole.access, whole.offset + offset, whole.swapped
    return value


def _place(storage: Storage | None, key: str, stream: Stream, swapped: bool, where: str) -> None:
    """Find the bytes of the next storage."""
    if storage is None:
        raise InputError(f"{where} cannot be loaded: nothing refers to its storage '{shown(key)}'; it is damaged.")
    count = int.from_bytes(stream.read(8), "little")
    if count * itemsize(storage.dtype) != storage.nbytes:
        raise _short(key, where)
    try:
        storage.access, storage.offset, storage.swapped = stream.access, stream.skip(storage.nbytes), swapped
    except ValueError:
        raise _short(key, where) from None


def _short(key: str, where: str) -> InputError:
    return InputError(f"{where}: the storage '{shown(key)}' has fewer bytes than its tensors need; it is damaged.")


def nested_storage(data: Any, where: str) -> Storage:
    """The storage in the bytes that a plain pickle keeps for one: a whole file of this format.

    Raises:
        InputError: the bytes are damaged.
    """
    if isinstance(data, Span):
        found = read_legacy(data.access, where, data.offset, data.offset + data.length)
    elif type(data) is bytes:
        found = read_legacy(Memory(data), where)
    else:
        raise NotKnown
    if not isinstance(found, Storage):
        raise NotKnown
    return found
