"""`.npy` files, read where they lie: `x.npy` with `y.npy` beside it, or a folder of `x`, `y`, `lengths` (`.npy`).

The file of another array has the name of the inputs' with `x` replaced, as `x_train.npy` and `y_train.npy` or
`test_x.npy` and `test_y.npy`. In a folder a part `train` is `x_train.npy` or `train_x.npy`.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.errors import InputError
from lastcli.evaluation.readers.archive import check_dtype, read_array_header
from lastcli.evaluation.readers.base import DataFile, Found, Reader, Request, first_line
from lastcli.evaluation.readers.named import NORMALISATION, ROWS, inputs_missing, own_name, require_named
from lastcli.evaluation.readers.stored import StoredArray

__all__ = ["READER", "open_array", "read"]

_HEADER = 1 << 16
_X = re.compile(r"(?<![A-Za-z])[xX](?![A-Za-z])")


def read(request: Request) -> Found:
    """See `Reader.read`; inputs stay on disk."""
    files = _in_folder(request) if request.path.is_dir() else _beside(request)
    found: dict[str, Any] = {role: open_array(path) for role, path in files.items()}
    found |= {role: np.asarray(array) for role, array in found.items() if role != "x"}
    return Found(**found)


def open_array(path: Path) -> np.ndarray | StoredArray:
    """The array of a `.npy`; on disk still, unless it is a scalar or in Fortran order.

    Raises:
        InputError: missing, damaged, cut short, or not of real numbers.
    """
    file = DataFile(path)
    where = str(path)
    stream = io.BytesIO(file.read(0, min(file.size, _HEADER), "its header"))
    try:
        shape, fortran, dtype = read_array_header(stream)
    except (ValueError, SyntaxError, TypeError, EOFError, OverflowError) as error:
        raise InputError(f"{where}: not a readable .npy header ({first_line(error)}).") from error
    check_dtype(dtype, where)
    start = stream.tell()
    declared = math.prod(shape) * dtype.itemsize
    if any(axis < 0 for axis in shape) or declared != file.size - start:
        raise InputError(
            f"{where}: its header declares {declared:,} bytes of shape {shape}, but the file holds "
            f"{file.size - start:,}; the file is damaged."
        )
    if not shape or (fortran and len(shape) > 1):
        array = file.read_array(start, shape[::-1], dtype, "the array").T
        return np.ascontiguousarray(array, dtype=dtype.newbyteorder("=")).reshape(shape)
    return StoredArray(file, start, shape, dtype, "the array")


def _beside(request: Request) -> dict[str, Path]:
    """The named file and those beside it that say more of the same examples."""
    path = request.path
    request.refuse_part("one array")
    found = {"x": path}
    for role in (*ROWS[1:], *NORMALISATION):
        names = request.columns.get(role) or ([_X.sub(role, path.stem, count=1)] if _X.search(path.stem) else [])
        for name in names:
            other = path.with_name(f"{name}.npy")
            if other.is_file() and other != path:
                found[role] = other
            elif role in request.columns:
                raise InputError(f"{request.where}: there is no {other} beside it, which --columns names as {role}.")
    return found


def _in_folder(request: Request) -> dict[str, Path]:
    keys = sorted(path.stem for path in request.path.glob("*.npy"))
    require_named(request, keys)
    found: dict[str, str] = {}
    for role in ROWS:
        name = next((n for n in (request.array_name(role), f"{request.part}_{role}") if n in keys), None)
        if name is not None:
            found[role] = name
    if "x" not in found:
        raise inputs_missing(request, keys)
    found |= {role: name for role in NORMALISATION if (name := own_name(request, role, keys)) is not None}
    return {role: request.path / f"{name}.npy" for role, name in found.items()}


READER = Reader(
    "npy",
    read,
    suffixes=(".npy",),
    begins=(b"\x93NUMPY",),
    folder=lambda path: any(path.glob("*.npy")),
    parts="x_train.npy, train_x.npy",
)
