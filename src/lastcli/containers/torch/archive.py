"""The zip archive that PyTorch writes since 1.6: one pickle, and a member for every storage it refers to.

PyTorch writes every member stored, not compressed, once; a compressed member could unpack to anything. A storage is
read where its member lies in the file, and only if that is as long as the pickle claims.
"""

from __future__ import annotations

import struct
import zipfile
from typing import Any

from lastcli.containers.inputs import RandomAccess, shown
from lastcli.containers.pickle.machine import run
from lastcli.containers.pickle.stream import Stream
from lastcli.containers.pickle.tensors import storage_of
from lastcli.containers.pickle.values import Storage
from lastcli.errors import InputError

__all__ = ["named_storage", "read_archive"]

_MAX_PICKLE = 2**28
_LOCAL_HEADER = 30


def read_archive(file: RandomAccess) -> Any:
    """What the pickle of the archive holds, as `pickle.machine` reads it.

    Raises:
        InputError: the archive is not what PyTorch writes.
    """
    where = shown(file.path, 1000)
    try:
        with zipfile.ZipFile(file.path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            _check_members(archive.infolist(), file.size, where)
            pickled = next(member for name, member in members.items() if name.endswith("/data.pkl"))
            root = pickled.filename[: -len("data.pkl")]
            _check_sum(archive, pickled)
            swapped = f"{root}byteorder" in members and archive.read(f"{root}byteorder").strip() == b"big"
    except (zipfile.BadZipFile, struct.error, UnicodeDecodeError, NotImplementedError, EOFError, OSError) as error:
        raise InputError(f"{where} is a damaged zip archive ({shown(error)}); copy the file again.") from error
    storages: dict[str, Storage] = {}

    def refer(pid: Any) -> Any:
        key, storage = named_storage(pid)
        if key in storages:
            return storages[key]
        member = members.get(f"{root}data/{key}")
        if member is None or member.file_size < storage.nbytes:
            raise InputError(
                f"{where}: the storage '{shown(key)}' has fewer bytes than its tensors need; it is damaged."
            )
        storage.access, storage.offset, storage.swapped = file, _begin(file, member, where), swapped
        storages[key] = storage
        return storage

    start = _begin(file, pickled, where)
    return run(Stream(file, start, start + pickled.file_size), where, persistent=refer)


def named_storage(pid: Any) -> tuple[str, Storage]:
    """The storage that a pickle refers to as ("storage", its class, key, device, number of elements, ...).

    Raises:
        ValueError: it refers to something else.
    """
    if type(pid) is not tuple or len(pid) < 5 or pid[0] != "storage" or type(pid[2]) is not str:
        raise ValueError("a reference that is no storage")
    return pid[2], storage_of(pid[1], pid[4])


def _begin(file: RandomAccess, member: zipfile.ZipInfo, where: str) -> int:
    """Where the bytes of a member lie: behind the header that stands before it."""
    header = file.read(member.header_offset, _LOCAL_HEADER, "a member of the archive")
    name, extra = struct.unpack_from("<HH", header, 26)
    start = member.header_offset + _LOCAL_HEADER + int(name) + int(extra)
    if header[:4] != b"PK\x03\x04" or start + member.file_size > file.size:
        raise InputError(f"{where} is a damaged zip archive; copy the file again.")
    return start


def _check_sum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as data:
        while data.read(1 << 20):
            pass


def _check_members(members: list[zipfile.ZipInfo], size: int, where: str) -> None:
    names = [member.filename for member in members]
    if any(name.endswith(".npy") for name in names):
        raise InputError(f"{where} is a NumPy archive and not a checkpoint.")
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(f"{where} is a TorchScript program; save the module's state_dict instead.")
    if any(name.endswith("models/model.json") for name in names):
        raise InputError(f"{where} is a program of torch.export; save the module's state_dict instead.")
    if len(set(names)) != len(names):
        raise InputError(f"{where} has the same archive member twice; the file is damaged or hostile.")
    for member in members:
        plain = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        if not plain or member.flag_bits & 1:
            raise InputError(f"{where}: member '{shown(member.filename)}' is compressed, which PyTorch never does.")
        if member.filename.endswith("/data.pkl") and member.file_size > _MAX_PICKLE:
            raise InputError(
                f"{where}: its structure has {member.file_size:,} bytes, over the limit of {_MAX_PICKLE:,}."
            )
    if sum(member.file_size for member in members) > size:
        raise InputError(f"{where} declares more bytes than it has; the file is cut short or hostile.")
    if sum(name.endswith("/data.pkl") for name in names) != 1:
        raise InputError(f"{where} is a zip archive but not a torch file: it has not one data.pkl.")
