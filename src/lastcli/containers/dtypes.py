"""The dtypes a checkpoint may hold, by the names that `TensorInfo` uses, and their sizes.

`ml_dtypes` registers bfloat16 and the float8s with NumPy; it is imported only where one of them is met.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["EXTENDED", "ITEMSIZE", "SAFETENSORS_CODES", "dtype_of", "safe_nbytes"]

ITEMSIZE: dict[str, int] = {
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
}
"""Bytes of one element, by dtype name."""

EXTENDED = {name for name in ITEMSIZE if name.startswith(("bfloat", "float8"))}
"""The names that come from `ml_dtypes`."""

SAFETENSORS_CODES: dict[str, str] = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}
"""The dtype code in a safetensors header, by dtype name; complex128 has none."""

_LARGEST = 2**62
_MAX_RANK = 64


def dtype_of(name: str) -> np.dtype:
    """The NumPy dtype of a name in `ITEMSIZE`.

    Raises:
        KeyError: the name is not in the table.
    """
    if name not in ITEMSIZE:
        raise KeyError(name)
    if name in EXTENDED:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)


def safe_nbytes(shape: tuple[int, ...], dtype: str) -> int | None:
    """Bytes of a tensor, or None where no NumPy array of that shape can exist (rank, overflow, negative axis).

    The check comes before any allocation: a zero in the shape does not excuse an absurd axis beside it.
    """
    if len(shape) > _MAX_RANK or any(axis < 0 for axis in shape):
        return None
    itemsize = ITEMSIZE[dtype]
    if math.prod(axis for axis in shape if axis) * itemsize > _LARGEST:
        return None
    return math.prod(shape) * itemsize
