"""Attacks on a torch file."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile.case import Case

__all__ = ["TORCH", "repacked"]


class _System:
    def __reduce__(self) -> tuple:
        return os.system, ("true",)


class _Nested:
    def __reduce__(self) -> tuple:
        return eval, (_System(),)


def _saved(value: object, **options: object) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def repacked(data: bytes, change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A torch archive with members changed; None leaves one out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for member in old.infolist():
            content = change(member.filename, old.read(member))
            if content is not None:
                new.writestr(member.filename, content)
    return buffer.getvalue()


def _weights() -> dict:
    import torch

    return {"w": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)}


def _pt(name: str, says: str, content: Callable[[], bytes]) -> Case:
    def build(folder: Path) -> Path:
        path = folder / "hostile.pt"
        path.write_bytes(content())
        return path

    return Case(name, build, says)


def _bomb() -> list:
    bomb: list = []
    for _ in range(64):
        bomb = [bomb, bomb]
    return bomb


def _duplicated() -> bytes:
    buffer = io.BytesIO(_saved(_weights()))
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(archive.infolist()[0].filename, b"again")
    return buffer.getvalue()


def _zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(10_000_000))
    return buffer.getvalue()


def _overstated() -> bytes:
    """The directory gives the storage of w 2 GiB: its length in the file is only what the directory says it is."""
    data = bytearray(_saved(_weights()))
    name = data.rindex(b"/data/0")
    entry = data.rindex(b"PK\x01\x02", 0, name)
    struct.pack_into("<II", data, entry + 20, 2**31, 2**31)
    return bytes(data)


def _member(suffix: str, change: Callable[[bytes], bytes | None]) -> bytes:
    """A sound archive with one member changed, or left out where `change` gives None."""
    return repacked(_saved(_weights()), lambda name, content: change(content) if name.endswith(suffix) else content)


def _negative(pickled: bytes) -> bytes:
    """w claims the strides (-3, 1) instead of (3, 1)."""
    if b"K\x03K\x01\x86" not in pickled:
        raise AssertionError("PyTorch pickles strides in another way now; adapt the attack")
    return pickled.replace(b"K\x03K\x01\x86", b"J\xfd\xff\xff\xffK\x01\x86")


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(3))
    return buffer.getvalue()


def _expanded() -> bytes:
    import torch

    return _saved({"w": torch.zeros(1).expand(2**40)})


def _pickled(program: bytes) -> bytes:
    """A torch archive whose pickle is this program."""
    return _member("data.pkl", lambda content: b"\x80\x02" + program + b".")


def _doubled(levels: int, end: bytes) -> bytes:
    """A tuple that holds the one before it twice, so many times, made from 3 bytes a level."""
    return _pickled(b"}K\x01" + levels * b"2\x86" + end)


def _legacy(program: bytes) -> bytes:
    """A file from before PyTorch 1.6 whose third pickle is this program."""
    whole = _saved(_weights(), _use_new_zipfile_serialization=False)
    buffer = io.BytesIO(whole)
    for _ in range(2):
        pickle.load(buffer)
    return whole[: buffer.tell()] + b"\x80\x02" + program + b"." + whole[buffer.tell() :]


TORCH: list[Case] = [
    _pt("reduce_os_system", "posix.system|nt.system|os.system", lambda: _saved({"w": _System()})),
    _pt("reduce_os_system_legacy", "system", lambda: _saved({"w": _System()}, _use_new_zipfile_serialization=False)),
    _pt("nested_globals", "nothing is built or run", lambda: _saved({"w": [{"x": _Nested()}]})),
    _pt("plain_pickle", "system|cannot be loaded", lambda: pickle.dumps({"w": _System()}, 2)),
    _pt("memo_bomb", "too many values|deep", lambda: _saved({"w": _bomb()})),
    _pt("deflated_zip_bomb", "compressed", _zip_bomb),
    _pt("duplicate_member", "twice", _duplicated),
    _pt("member_longer_than_the_file", "declares more bytes", _overstated),
    _pt("storage_too_short", "fewer bytes", lambda: _member("data/0", lambda content: content[:8])),
    _pt("storage_missing", "fewer bytes", lambda: _member("data/0", lambda content: None)),
    _pt("more_elements", "fewer bytes", lambda: _member("data.pkl", lambda c: c.replace(b"K\x06t", b"K\xfat"))),
    _pt("negative_stride", "cannot be loaded", lambda: _member("data.pkl", _negative)),
    _pt("no_pickle", "data.pkl", lambda: _member("data.pkl", lambda content: None)),
    _pt("broken_pickle", "cannot be loaded", lambda: _member("data.pkl", lambda content: content[:40])),
    _pt("cut_archive", "damaged zip", lambda: _saved(_weights())[:-30]),
    _pt("numpy_archive", "NumPy archive", _npz),
    _pt("expanded_to_4_tib", "far larger", _expanded),
    _pt("memo_index", "memo index", lambda: _pickled(b"}r\xff\xff\xff\x7f")),
    _pt("memo_index_as_text", "memo index", lambda: _pickled(b"}p2147483647\n")),
    _pt("memo_index_legacy", "memo index", lambda: _legacy(b"}r\xff\xff\xff\x7f")),
    _pt("bytearray_of_200_mb", "their number", lambda: _pickled(b"c__builtin__\nbytearray\nJ\x00\xc2\xeb\x0b\x85R")),
    _pt("bytearray_of_200_mb_legacy", "bytearray", lambda: _legacy(b"c__builtin__\nbytearray\nJ\x00\xc2\xeb\x0b\x85R")),
    _pt("bytearray_longer_than_the_file", "breaks off", lambda: _pickled(b"\x96" + (2**40).to_bytes(8, "little"))),
    _pt("bytes_longer_than_the_file_legacy", "breaks off", lambda: _legacy(b"\x8e" + (2**40).to_bytes(8, "little"))),
    _pt("text_longer_than_the_file_legacy", "breaks off", lambda: _legacy(b"X" + (2**31).to_bytes(4, "little"))),
    _pt("hashing_bomb", "too many values", lambda: _doubled(60, b"K\x01s")),
    _pt("hashing_bomb_as_argument", "too many values", lambda: _doubled(60, b"\x85c__builtin__\nset\nR")),
    _pt("hashed_again_and_again", "too much work", lambda: _pickled(
        b"}K\x01" + 20 * b"2\x86" + b"q\x01" + b"0" + 40 * b"h\x01K\x01s")),
    _pt("tuples_without_end", "deep", lambda: _pickled(b"}K\x01" + 100_000 * b"\x85" + b"K\x01s")),
    _pt("operations_without_end", "operations", lambda: _pickled(b"}" + 2_000_000 * b"N0")),
    _pt("popped_from_nothing", "breaks off", lambda: _pickled(b"0")),
    _pt("zero_bytes", "not a torch file", lambda: b""),
    _pt("no_tensors", "no tensors", lambda: _saved({"epoch": 3})),
    _pt("a_bare_tensor", "no tensors", lambda: _saved(_weights()["w"])),
]  # fmt: skip
