"""`.safetensors` with tensors `x`, `y`, `lengths`, named as the arrays of an `.npz`; inputs stay on disk."""

from __future__ import annotations

from typing import Any

import numpy as np

from lastcli.containers.dtypes import dtype_of
from lastcli.containers.safetensors.reader import read_header
from lastcli.errors import InputError
from lastcli.evaluation.readers.archive import KINDS
from lastcli.evaluation.readers.base import DataFile, Found, Reader, Request
from lastcli.evaluation.readers.named import NORMALISATION, ROWS, inputs_missing, own_name, require_named
from lastcli.evaluation.readers.stored import StoredArray

__all__ = ["READER", "read"]


def read(request: Request) -> Found:
    """See `Reader.read`."""
    file = DataFile(request.path)
    header = read_header(file)
    keys = tuple(header.tensors)
    require_named(request, keys)
    names = {role: request.array_name(role) for role in ROWS if request.array_name(role) in header.tensors}
    if "x" not in names:
        raise inputs_missing(request, keys)
    names |= {role: name for role in NORMALISATION if (name := own_name(request, role, keys)) is not None}
    found: dict[str, Any] = {}
    for role, name in names.items():
        info = header.tensors[name]
        dtype = dtype_of(info.dtype)
        if dtype.kind not in KINDS:
            raise InputError(f"{request.where}: tensor {name!r} has dtype {info.dtype}; store it as float32.")
        array = StoredArray(file, header.offsets[name], info.shape, dtype, f"tensor '{name}'")
        found[role] = array if role == "x" else np.asarray(array)
    return Found(**found)


READER = Reader("safetensors", read, suffixes=(".safetensors",), parts="x_train, y_train")
