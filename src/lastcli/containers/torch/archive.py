"""What a torch archive must be before PyTorch sees it.

PyTorch writes every member stored, not compressed, once; a compressed member could unpack to anything. And PyTorch,
mapping a file, believes the number of elements that the pickle claims for a storage: where the member is shorter, the
tensor would silently go on into the bytes that follow. The pickle is therefore read once with every class inert, only
to hear which storages it asks for.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

from lastcli.containers.inputs import RandomAccess, shown
from lastcli.containers.torch.pickles import check_legacy, check_pickle
from lastcli.errors import InputError

__all__ = ["FAULTS", "check_archive"]

FAULTS = (
    pickle.UnpicklingError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    AssertionError,
    OverflowError,
    MemoryError,
    OSError,
    ImportError,
    struct.error,
)
"""What reading a damaged pickle can raise."""

_MAX_PICKLE = 2**28
_STORAGE_ITEMSIZE = {
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "Long": 8,
    "Int": 4,
    "Short": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
    "ComplexDouble": 16,
    "ComplexFloat": 8,
    "ComplexHalf": 4,
    "Untyped": 1,
    "QInt8": 1,
    "QUInt8": 1,
    "QInt32": 4,
}


def check_archive(path: Path) -> bool:
    """Whether the file is a zip archive, checked; False for a legacy pickle.

    Raises:
        InputError: the archive is not what PyTorch writes.
    """
    where = shown(path, 1000)
    file = RandomAccess(path)
    try:
        start, size = file.read(0, min(file.size, 4), "its beginning"), file.size
    finally:
        file.close()
    if not start.startswith(b"PK"):
        if start[:1] != b"\x80":
            raise InputError(f"{where} is not a torch file; it is damaged or has the wrong suffix.")
        with path.open("rb") as legacy:
            check_legacy(legacy, where, size)
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, size, where)
            root = next(member.filename for member in members if member.filename.endswith("/data.pkl"))[
                : -len("data.pkl")
            ]
            with archive.open(f"{root}data.pkl") as data:
                check_pickle(data, where, size)
            with archive.open(f"{root}data.pkl") as data:
                storages = _Storages(data)
                storages.load()
    except zipfile.BadZipFile as error:
        raise InputError(f"{where} is a damaged zip archive ({shown(error)}); copy the file again.") from error
    except FAULTS as error:
        raise InputError(f"{where} cannot be loaded ({shown(error)}); it is damaged.") from error
    sizes = {member.filename: member.file_size for member in members}
    for key, needed in storages.needed.items():
        if sizes.get(f"{root}data/{key}", -1) < needed:
            raise InputError(
                f"{where}: the storage '{shown(key)}' has fewer bytes than its tensors need; it is damaged."
            )
    return True


def _check_members(members: list[zipfile.ZipInfo], size: int, where: str) -> None:
    names = [member.filename for member in members]
    if any(name.endswith(".npy") for name in names):
        raise InputError(f"{where} is a NumPy archive and not a checkpoint.")
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(f"{where} is a TorchScript program; save the module's state_dict instead.")
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


class _Inert:
    """Stands for every class and function a pickle names; does nothing with anything."""

    origin = ""

    def __new__(cls, *arguments: Any, **options: Any) -> _Inert:
        if cls.origin in ("bytearray", "bytes") and any(type(item) is int for item in arguments):
            raise pickle.UnpicklingError("bytes that are given by their number alone")
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **options: Any) -> _Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Take no notice."""

    def extend(self, items: Any) -> None:
        """Take no notice."""

    def add(self, item: Any) -> None:
        """Take no notice."""


class _Storages(pickle.Unpickler):
    """Runs a pickle over inert objects and notes the bytes asked of every storage."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.needed: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        """An inert class that remembers its name."""
        return type("_Named", (_Inert,), {"origin": name})

    def persistent_load(self, pid: Any) -> Any:
        """Note a storage: ("storage", its class, key, device, number of elements)."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("a reference that is no storage")
        origin, key, count = getattr(pid[1], "origin", ""), pid[2], pid[4]
        itemsize = _STORAGE_ITEMSIZE.get(origin.removesuffix("Storage"))
        if itemsize is None or type(count) is not int or count < 0 or not isinstance(key, str):
            raise pickle.UnpicklingError(f"the storage {shown(key)} of type {shown(origin)} is not known")
        self.needed[key] = max(self.needed.get(key, 0), count * itemsize)
        return _Inert()
