"""Attacks on a safetensors file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import Case

__all__ = ["SAFETENSORS", "entry", "safetensors_bytes"]


def safetensors_bytes(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of any header (bytes, or an object made JSON) and any declared header length."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(begin: int = 0, end: int = 8, shape: object = (2,), dtype: str = "F32", **more: object) -> dict[str, object]:
    """One tensor's description; two float32 by default."""
    return {
        "dtype": dtype,
        "shape": list(shape) if isinstance(shape, tuple) else shape,
        "data_offsets": [begin, end],
        **more,
    }


def _st(name: str, says: str, content: bytes | Callable[[], bytes]) -> Case:
    def build(folder: Path) -> Path:
        path = folder / "hostile.safetensors"
        path.write_bytes(content if isinstance(content, bytes) else content())
        return path

    return Case(name, build, says)


_EIGHT = b"\0" * 8
_ENTRY = json.dumps(entry()).encode()
_DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

SAFETENSORS: list[Case] = [
    _st("zero_bytes", "0 bytes", b""),
    _st("five_bytes", "5 bytes", b"\x01\0\0\0\0"),
    _st("header_length_2_63", "limit", struct.pack("<Q", 2**63) + b"{}"),
    _st("header_length_100000001", "limit", struct.pack("<Q", 100_000_001) + b"{}"),
    _st("header_longer_than_file", "cut short", safetensors_bytes({}, length=500)),
    _st("header_not_utf8", "UTF-8", safetensors_bytes(b'{"\xff\xfe": 1}')),
    _st("header_not_json", "JSON", safetensors_bytes(b"{not json at all")),
    _st("header_is_a_list", "begin with", safetensors_bytes(b"[]      ")),
    _st("header_100k_deep", "deep", safetensors_bytes(_DEEP)),
    _st("header_nan", "NaN", safetensors_bytes(b'{"a": NaN}')),
    _st("header_number_of_100k_digits", "JSON", safetensors_bytes(b'{"a": ' + b"9" * 100_000 + b"}")),
    _st("duplicate_key", "'a'.* twice", safetensors_bytes(b'{"a": %s, "a": %s}' % (_ENTRY, _ENTRY), _EIGHT)),
    _st("trailing_bytes", "3 bytes after", safetensors_bytes({"a": entry()}, _EIGHT + b"xyz")),
    _st("hole", "'b'.*hole", safetensors_bytes({"a": entry(), "b": entry(12, 20)}, b"\0" * 20)),
    _st("overlap", "'b'.*overlaps", safetensors_bytes({"a": entry(), "b": entry(4, 12)}, b"\0" * 12)),
    _st("reversed_offsets", "'a'", safetensors_bytes({"a": entry(8, 0)}, _EIGHT)),
    _st("negative_offsets", "'a'", safetensors_bytes({"a": entry(-8, 0)}, _EIGHT)),
    _st("boolean_offsets", "'a'", safetensors_bytes({"a": entry(False, True, (1,), "U8")}, b"x")),
    _st("offsets_past_the_end", "cut short", safetensors_bytes({"a": entry()}, b"\0" * 4)),
    _st("wrong_size", "needs 8 bytes", safetensors_bytes({"a": entry(0, 12)}, b"\0" * 12)),
    _st("shape_product_overflows", "impossible", safetensors_bytes({"a": entry(0, 8, (2**32, 2**32))}, _EIGHT)),
    _st("shape_zero_beside_2_62", "impossible", safetensors_bytes({"a": entry(0, 0, (0, 2**62))})),
    _st("shape_2_62_beside_zero", "impossible", safetensors_bytes({"a": entry(0, 0, (2**62, 0))})),
    _st("rank_70", "impossible", safetensors_bytes({"a": entry(0, 4, (1,) * 70)}, b"\0" * 4)),
    _st("negative_axis", "whole numbers", safetensors_bytes({"a": entry(0, 8, (-2,))}, _EIGHT)),
    _st("float_axis", "whole numbers", safetensors_bytes({"a": entry(0, 8, [2.0])}, _EIGHT)),
    _st("shape_is_text", "whole numbers", safetensors_bytes({"a": entry(0, 8, "2")}, _EIGHT)),
    _st("unknown_dtype", "F33", safetensors_bytes({"a": entry(dtype="F33")}, _EIGHT)),
    _st("four_bit_dtype", "F4", safetensors_bytes({"a": entry(0, 1, (2,), "F4")}, b"\0")),
    _st("entry_is_a_number", "dtype, shape", safetensors_bytes({"a": 3})),
    _st("entry_without_shape", "dtype, shape", safetensors_bytes({"a": {"dtype": "F32", "offsets": [0, 8]}}, _EIGHT)),
    _st("entry_with_more_keys", "nothing else", safetensors_bytes({"a": entry(extra=1)}, _EIGHT)),
    _st("metadata_not_text", "__metadata__", safetensors_bytes({"__metadata__": {"a": 1}})),
    _st("metadata_a_list", "__metadata__", safetensors_bytes({"__metadata__": ["a"]})),
    _st("metadata_not_utf8", "Unicode", safetensors_bytes(b'{"__metadata__": {"a": "\xc3\x28"}}')),
    _st("lone_surrogate_in_a_name", "Unicode", safetensors_bytes({"\ud800": entry()}, _EIGHT)),
    _st("extras_not_json", "last.extras", safetensors_bytes({"__metadata__": {"last.extras": "{"}})),
    _st("extras_base64", "last.extras", safetensors_bytes({"__metadata__": {"last.extras": '{"a": {"$bytes": "é"}}'}})),
    _st(
        "structure_of_wrong_types",
        "last.structure",
        safetensors_bytes({"__metadata__": {"last.extras": '{"last.structure": {"torch": {"at": 3}}}'}}),
    ),
]  # fmt: skip
