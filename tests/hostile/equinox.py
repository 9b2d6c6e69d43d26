"""Attacks on an equinox file."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np

from tests.builders.eqx import eqx_bytes
from tests.hostile.case import Case

__all__ = ["EQUINOX", "npy"]


def npy(descr: object = "<f4", shape: object = (2,), data: bytes = b"\0" * 8, fortran: object = False) -> bytes:
    """An array of any claims."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def _raw_header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _eqx(name: str, says: str, content: bytes) -> Case:
    def build(folder: Path) -> Path:
        path = folder / "hostile.eqx"
        path.write_bytes(content)
        return path

    return Case(name, build, says)


def _objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([print], dtype=object), allow_pickle=True)
    return file.getvalue()


_SOUND = eqx_bytes([np.ones(3, "f4"), np.ones(2, "f4")])

EQUINOX: list[Case] = [
    _eqx("zero_bytes", "empty", b""),
    _eqx("truncated", "cut short", _SOUND[:-3]),
    _eqx("cut_in_a_header", "cut short", _SOUND[:160]),
    _eqx("trailing", "leaf 2 .*no array", _SOUND + b"\0" * 20),
    _eqx("trailing_byte", "leaf 2 .*no array", _SOUND + b"\0"),
    _eqx("objects", "Python objects, which are never loaded", _SOUND + _objects()),
    _eqx("a_pickle_after", "no array", _SOUND + pickle.dumps({"a": print})),
    _eqx("false_header_length", "cut short", b"\x93NUMPY\x01\x00\xff\xff" + b" " * 50),
    _eqx("huge_header_length", "header of", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 50),
    _eqx("unknown_version", "version 1 or 2", b"\x93NUMPY\x09\x00\x10\x00" + b" " * 50),
    _eqx("header_of_code", "damaged header", _raw_header(b"__import__('os').system('true')\n")),
    _eqx("header_nested_deep", "damaged header", _raw_header(b"(" * 30_000)),
    _eqx("header_without_shape", "damaged header", _raw_header(b"{'descr': '<f4', 'fortran_order': False}\n")),
    _eqx("wrong_shape", "cut short", npy(shape=(3,))),
    _eqx("negative_shape", "whole numbers|impossible", npy(shape=(-2,))),
    _eqx("overflowing_shape", "impossible", npy(shape=(2**40, 2**40))),
    _eqx("shape_2_62_beside_zero", "impossible", npy(shape=(2**62, 0), data=b"")),
    _eqx("shape_of_truth", "damaged header|whole numbers", npy(shape=(True, 2))),
    _eqx("dtype_text", "does not support", npy(descr="<U2")),
    _eqx("dtype_big_endian", "does not support", npy(descr=">f4")),
    _eqx("dtype_fields", "does not support|damaged", npy(descr=[("a", "<f4")])),
    _eqx("dtype_raw_bytes", "raw bytes, 1 an element", npy(descr="|V1", shape=(8,))),
    _eqx("line_no_json", "not valid JSON", b"{oops\n" + _SOUND),
    _eqx("line_not_utf8", "Unicode", b'{"a": "\xff"}\n' + _SOUND),
    _eqx("line_nested_deep", "nested", b"[" * 100_000 + b"\n" + _SOUND),
    _eqx("no_array_after_the_line", "no equinox file", b'{"a": 1}\n{"b": 2}\n'),
    _eqx("text", "no equinox file", b"hello"),
]
