"""NumPy's format of one array, as it stands in a file among others: a checked header, then the bytes.

The header is a Python literal. NumPy's own functions read it, on a copy of bounded length; what an array claims is held
against the file before memory is asked for.
"""

from __future__ import annotations

import io
import tokenize
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from lastcli.containers.dtypes import EXTENDED, ITEMSIZE, dtype_of, safe_nbytes

__all__ = ["MAGIC", "Header", "end_of_first", "is_number", "parse", "prefix_length", "write_header"]

MAGIC = b"\x93NUMPY"

_MAX_HEADER = 2**16
# Byte counts of dtypes that NumPy knows only as raw bytes: two bytes are bfloat16, as equinox and jax.numpy take them.
_RAW = {2: "bfloat16"}
_READ = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Header:
    """What an array says of itself.

    Attributes:
        length: bytes before its data.
        fortran: whether the first axis is the fastest.
    """

    length: int
    shape: tuple[int, ...]
    dtype: str
    fortran: bool
    nbytes: int


def prefix_length(start: bytes) -> int:
    """Bytes of the magic string, the version and the header, from the first twelve.

    Raises:
        ValueError: it is no array of a known version.
    """
    version = tuple(start[6:8])
    if not start.startswith(MAGIC) or len(start) < 12 or version not in _READ:
        raise ValueError("no array of NumPy's format, version 1 or 2")
    width = 2 if version == (1, 0) else 4
    count = int.from_bytes(start[8 : 8 + width], "little")
    if count > _MAX_HEADER:
        raise ValueError(f"a header of {count:,} bytes")
    return 8 + width + count


def parse(raw: bytes, dtype: str | None = None) -> Header:
    """The header whose bytes these are, magic string and all.

    Args:
        raw: `prefix_length` bytes.
        dtype: what raw bytes are said to be, by name.

    Raises:
        ValueError: it is damaged, or of a dtype that is not read here.
    """
    file = io.BytesIO(raw[8:])
    try:
        shape, fortran, found = _READ[raw[6], raw[7]](file, max_header_size=_MAX_HEADER)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise ValueError("a damaged header") from error
    name = _dtype_name(found, dtype)
    if not all(type(axis) is int and axis >= 0 for axis in shape):
        raise ValueError("a shape that is not whole numbers")
    nbytes = safe_nbytes(tuple(shape), name)
    if nbytes is None:
        raise ValueError("an impossible shape")
    return Header(len(raw), tuple(shape), name, bool(fortran) and len(shape) > 1, nbytes)


def _dtype_name(found: np.dtype, said: str | None) -> str:
    if found.kind == "V" and found.names is None and found.subdtype is None:
        name = said if said in EXTENDED and ITEMSIZE[said] == found.itemsize else _RAW.get(found.itemsize)
        if name is None:
            raise ValueError(f"raw bytes, {found.itemsize} an element, whose dtype is not known")
        return name
    if found.hasobject:
        raise ValueError("Python objects, which are never loaded")
    if not found.isnative or found.name not in ITEMSIZE:
        raise ValueError(f"dtype {found.str}, which last does not support")
    return found.name


def end_of_first(start: bytes, size: int) -> int | None:
    """Where in a file of that size the array it begins with ends, if another one can follow; else None."""
    try:
        length = prefix_length(start[:12])
        header = parse(start[:length]) if length <= len(start) else None
    except (ValueError, IndexError):
        return None
    end = None if header is None else header.length + header.nbytes
    return end if end is not None and end < size else None


def is_number(value: Any) -> bool:
    """Whether it is a number of Python, which equinox saves as an array without axes."""
    return type(value) in (bool, float, complex) or (type(value) is int and -(2**63) <= value < 2**63)


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: str) -> None:
    """The header of a C-contiguous array, as `numpy.save` writes it."""
    description: dict[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(dtype_of(dtype)) if dtype not in EXTENDED else f"<V{ITEMSIZE[dtype]}",
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, description)
