"""What processes tell each other, as bytes: a JSON text and the bytes of arrays behind it.

The channel between the processes is not authenticated, so nothing that could run code is ever read from it: only plain
values, NumPy arrays, frozen dataclasses of this package and its errors, which are made from their fields again.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from typing import Any

import numpy as np

from lastcli import errors

__all__ = ["decode", "encode"]

_PACKAGE = "lastcli"


def encode(value: Any) -> bytes:
    """The bytes of a value.

    Raises:
        TypeError: it is nothing that may be sent.
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_packed(value, arrays)).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *(array.tobytes() for array in arrays)])


def decode(data: bytes) -> Any:
    """The value that `encode` made bytes of."""
    start = 8 + int.from_bytes(data[:8], "little")
    return _unpacked(json.loads(data[8:start]), _Arrays(data, start))


class _Arrays:
    """Arrays taken from the bytes one after the other, in the order in which they were put there."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._start = data, start

    def take(self, dtype: str, shape: list[int]) -> np.ndarray:
        kind, count = np.dtype(dtype), int(np.prod(shape))
        array = np.frombuffer(self._data, kind, count, self._start).reshape(shape)
        self._start += array.nbytes
        return array.copy()


def _packed(value: Any, arrays: list[np.ndarray]) -> Any:
    """A value in JSON's types, each but the plain ones as [what it is, ...]; arrays are put aside."""
    if value is None or isinstance(value, bool | str) or type(value) in (int, float):
        return value
    fields = _fields(value)
    if fields is not None:
        return ["data", type(value).__module__, type(value).__qualname__, _packed(fields, arrays)]
    if isinstance(value, list | tuple):
        return ["list" if isinstance(value, list) else "tuple", *(_packed(item, arrays) for item in value)]
    if isinstance(value, dict):
        return ["dict", *([_packed(key, arrays), _packed(item, arrays)] for key, item in value.items())]
    if isinstance(value, errors.LastError):
        return ["error", type(value).__name__, str(value)]
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{type(value).__name__} cannot be sent to another process")
    arrays.append(np.ascontiguousarray(array))
    return ["scalar" if isinstance(value, np.generic) else "array", array.dtype.str, list(array.shape)]


def _fields(value: Any) -> dict[str, Any] | None:
    """Name → value of a record of the package, a dataclass or a named tuple; None of anything else."""
    if type(value).__module__.partition(".")[0] != _PACKAGE:
        return None
    if isinstance(value, tuple):
        return value._asdict() if hasattr(value, "_asdict") else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _unpacked(value: Any, arrays: _Arrays) -> Any:
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind in ("array", "scalar"):
        array = arrays.take(*rest)
        return array[()] if kind == "scalar" else array
    if kind == "dict":
        return {_unpacked(key, arrays): _unpacked(item, arrays) for key, item in rest}
    if kind == "error":
        return _error_class(rest[0])(rest[1])
    if kind == "data":
        module, name, fields = rest
        return _record(module, name)(**_unpacked(fields, arrays))
    items = [_unpacked(item, arrays) for item in rest]
    return items if kind == "list" else tuple(items)


def _error_class(name: str) -> type[errors.LastError]:
    found = getattr(errors, name, errors.LastError)
    return found if isinstance(found, type) and issubclass(found, errors.LastError) else errors.LastError


def _record(module: str, name: str) -> type:
    """A dataclass or named tuple of this package by its name."""
    known = module.split(".")[0] == _PACKAGE and importlib.util.find_spec(module) is not None
    found: Any = importlib.import_module(module) if known else None
    for part in name.split("."):
        found = getattr(found, part, None)
    is_record = dataclasses.is_dataclass(found) or hasattr(found, "_make")
    if not (isinstance(found, type) and is_record):
        raise TypeError(f"{module}.{name} is no record of {_PACKAGE}")
    return found
