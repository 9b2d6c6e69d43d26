"""Attacks on a plain pickle, and on one that is compressed."""

from __future__ import annotations

import bz2
import gzip
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile.case import Case

__all__ = ["PICKLE"]


class _System:
    def __reduce__(self) -> tuple:
        return os.system, ("true",)


def _pkl(name: str, says: str, content: Callable[[], bytes], suffix: str = ".pkl") -> Case:
    def build(folder: Path) -> Path:
        path = folder / f"hostile{suffix}"
        path.write_bytes(content())
        return path

    return Case(name, build, says)


def _program(program: bytes) -> bytes:
    return b"\x80\x04" + program + b"."


def _array(change: Callable[[bytes], bytes]) -> bytes:
    """A dictionary with one array, its pickle changed."""
    whole = pickle.dumps({"w": np.arange(6.0)}, 4)
    changed = change(whole)
    if changed == whole:
        raise AssertionError("NumPy pickles arrays in another way now; adapt the attack")
    return changed


def _global(module: str, name: str) -> bytes:
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"


def _colliding(count: int) -> bytes:
    """Keys that are multiples of 2⁶¹ - 1, all of which have the hash 0."""
    keys = b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(1, count))
    return _program(b"}(" + keys + b"u")


def _tuple_keys(count: int) -> bytes:
    return _program(b"}(" + b"".join(b"J" + struct.pack("<i", k) + b"\x85N" for k in range(count)) + b"u")


PICKLE: list[Case] = [
    _pkl("reduce_os_system", "posix.system|nt.system|os.system", lambda: pickle.dumps({"w": _System()}, 4)),
    _pkl("instance", "os.system", lambda: _program(b"(ios\nsystem\n")),
    _pkl("object", "os.system", lambda: _program(b"(" + _global("os", "system") + b"\x8c\x04trueo")),
    _pkl("new_object", "os.system", lambda: _program(_global("os", "system") + b")\x81")),
    _pkl("new_object_with_options", "os.system", lambda: _program(_global("os", "system") + b")}\x92")),
    _pkl("call_of_what_was_called", "builtins.getattr", lambda: _program(_global("builtins", "getattr") + b")R)R")),
    _pkl("state_of_a_class", "breaks off", lambda: _program(_global("os", "system") + b"}b")),
    _pkl("call_of_text", "breaks off", lambda: _program(b"\x8c\x04true)R")),
    _pkl("extension", "copyreg.extension 7", lambda: _program(b"\x82\x07)R")),
    _pkl("persistent_id", "outside its pickle", lambda: _program(b"K\x01Q")),
    _pkl("buffer_outside", "outside the pickle", lambda: _program(b"\x97")),
    _pkl("memo_index", "memo index", lambda: _program(b"}r\xff\xff\xff\x7f")),
    _pkl("operations_without_end", "operations", lambda: _program(b"}" + 2_000_000 * b"N0")),
    _pkl("hashing_bomb", "too many values", lambda: _program(b"}K\x01" + 60 * b"2\x86" + b"K\x01s")),
    _pkl("bytearray_of_200_mb", "their number", lambda: _program(
        _global("builtins", "bytearray") + b"J\x00\xc2\xeb\x0b\x85R")),
    _pkl("bytes_longer_than_the_file", "breaks off", lambda: _program(b"\x8e" + (2**40).to_bytes(8, "little"))),
    _pkl("keys_that_collide", "too many digits", lambda: _colliding(100)),
    _pkl("tuples_that_collide", "too many tuples", lambda: _tuple_keys(10_002)),
    _pkl("a_list_in_itself", "deep", lambda: _program(b"}\x8c\x01w]\x94h\x00as")),
    _pkl("array_longer_than_its_bytes", "damaged", lambda: _array(lambda c: c.replace(b"K\x06\x85", b"K\xfa\x85"))),
    _pkl("array_of_objects", "no tensors", lambda: pickle.dumps({"w": np.array([_System(), 1], object)}, 4)),
    _pkl("gzip_bomb", "unpacks to more", lambda: bz2.compress(bytes(40_000_000)), ".joblib"),
    _pkl("cut_gzip", "cut short", lambda: gzip.compress(pickle.dumps({"w": np.arange(6.0)}))[:-12], ".pkl.gz"),
    _pkl("zero_bytes", "empty", lambda: b""),
    _pkl("no_pickle", "breaks off", lambda: b"this is text"),
    _pkl("broken_off", "breaks off", lambda: pickle.dumps({"w": np.arange(6.0)}, 4)[:-30]),
]  # fmt: skip
