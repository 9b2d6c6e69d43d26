"""Attacks on a flax msgpack file."""

from __future__ import annotations

from pathlib import Path

import msgpack

from tests.hostile.case import Case

__all__ = ["MSGPACK", "array_ext"]

_EIGHT = b"\0" * 8


def array_ext(shape: object = (2,), dtype: object = "float32", data: object = _EIGHT, code: int = 1) -> msgpack.ExtType:
    """A flax array of any claims."""
    return msgpack.ExtType(code, msgpack.packb([list(shape) if isinstance(shape, tuple) else shape, dtype, data]))


def _mp(name: str, says: str, content: object) -> Case:
    def build(folder: Path) -> Path:
        path = folder / "hostile.msgpack"
        path.write_bytes(content if isinstance(content, bytes) else msgpack.packb(content))
        return path

    return Case(name, build, says)


def _chunked(shape: object, chunks: dict) -> dict:
    return {"w": {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}}


_SOUND = msgpack.packb({"w": array_ext()})
_DUPLICATE = b"\x82" + 2 * (msgpack.packb("w") + msgpack.packb(array_ext()))

MSGPACK: list[Case] = [
    _mp("zero_bytes", "empty", b""),
    _mp("truncated", "cut short", _SOUND[:-3]),
    _mp("trailing", "1 bytes after", _SOUND + b"\xc0"),
    _mp("deep_maps", "deep", b"\x81\xa1a" * 100_000 + b"\xc0"),
    _mp("deep_lists", "deep", b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0"),
    _mp("false_map_length", "cut short", b"\xdf\xff\xff\xff\xff"),
    _mp("false_list_length", "cut short", b"\x81\xa1a\xdd\xff\xff\xff\xff"),
    _mp("false_text_length", "cut short", b"\x81\xa1a\xdb\xff\xff\xff\xff"),
    _mp("false_bytes_length", "cut short", b"\x81\xa1a\xc6\xff\xff\xff\xff"),
    _mp("false_extension_length", "cut short", b"\x81\xa1a\xc9\xff\xff\xff\xff\x01"),
    _mp("top_level_list", "not a map", [1, 2]),
    _mp("never_used_byte", "0xc1", b"\x81\xa1a\xc1"),
    _mp("dtype_object", "dtype 'O'", {"w": array_ext(dtype="O")}),
    _mp("dtype_bytes", "dtype 'S8'", {"w": array_ext(dtype="S8")}),
    _mp("dtype_big_endian", "dtype '>f4'", {"w": array_ext(dtype=">f4")}),
    _mp("dtype_a_number", "dtype '7'", {"w": array_ext(dtype=7)}),
    _mp("wrong_shape", "needs 12 bytes", {"w": array_ext(shape=(3,))}),
    _mp("negative_shape", "whole numbers", {"w": array_ext(shape=(-2,))}),
    _mp("overflowing_shape", "impossible", {"w": array_ext(shape=(2**40, 2**40))}),
    _mp("shape_2_62_beside_zero", "impossible", {"w": array_ext(shape=(2**62, 0), data=b"")}),
    _mp("text_for_bytes", "needs 8 bytes but has 2", {"w": array_ext(data="ab")}),
    _mp("number_for_bytes", "not bytes", {"w": array_ext(data=5)}),
    _mp("array_of_two_parts", "shape, dtype and bytes", {"w": msgpack.ExtType(1, msgpack.packb([[2], "float32"]))}),
    _mp("array_with_tail", "length does not fit", {"w": msgpack.ExtType(1, array_ext().data + b"\xc0")}),
    _mp("unknown_extension", "type 42", {"w": msgpack.ExtType(42, b"1234")}),
    _mp("complex_of_text", "two floats", {"w": msgpack.ExtType(2, msgpack.packb(["a", "b"]))}),
    _mp("float_keys", "neither text nor", {1.5: array_ext()}),
    _mp("truth_as_key", "neither text nor", {True: array_ext()}),
    _mp("bytes_as_key", "neither text nor", {b"a": array_ext()}),
    _mp("number_and_text_as_key", "both named '1'", {1: array_ext(), "1": array_ext()}),
    _mp("duplicate_keys", "'w' twice", _DUPLICATE),
    _mp("name_not_utf8", "UTF-8", b"\x81\xa1\xff\xc0"),
    _mp("chunk_not_an_array", "chunked", _chunked({"0": 2}, {"0": 3})),
    _mp("chunk_too_short", "do not fill", _chunked({"0": 3}, {"0": array_ext()})),
    _mp("chunks_unequal", "unequal", _chunked({"0": 3}, {"0": array_ext((1,), data=bytes(4)), "1": array_ext()})),
    _mp("chunk_missing", "chunked", _chunked({"0": 4}, {"0": array_ext(), "2": array_ext()})),
    _mp("chunks_of_two_dtypes", "chunked", _chunked({"0": 4}, {"0": array_ext(), "1": array_ext(dtype="int32")})),
    _mp("chunk_shape_of_text", "chunked", _chunked({"0": "2"}, {"0": array_ext()})),
    _mp("two_leaves_of_one_name", "both named", {"a": {"b": array_ext()}, "a/b": array_ext()}),
]  # fmt: skip
