"""What records of NumPy and JAX mean: dtypes, arrays, scalars, and the arrays that joblib puts behind its pickles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lastcli.containers.dtypes import EXTENDED, ITEMSIZE, safe_nbytes
from lastcli.containers.pickle.stream import Stream
from lastcli.containers.pickle.values import Global, Memory, Record, Span, Storage, Tensor, load

__all__ = ["KNOWN", "NotKnown", "behind", "is_jax_array"]

Value = Callable[[Any], Any]
"""What a raw value means (`meaning.Meaning.value`)."""

_ARRAYS = {"numpy.ndarray", "numpy.memmap", "numpy.matrix", "numpy.matrixlib.defmatrix.matrix"}
_RECONSTRUCT = {"numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct"}
_JAX = {"_reconstruct_array", "reconstruct_device_array", "_reconstruct_device_array"}
_JOBLIB = "joblib.numpy_pickle.NumpyArrayWrapper"


class NotKnown(Exception):
    """A record that is left as it is: an array of objects, of texts, of a class of its own."""


def is_jax_array(made: Global) -> bool:
    """Whether a global is what JAX's arrays are made with, in any of its versions."""
    return made.name in _JAX and made.module.startswith("jax")


def _dtype(record: Any) -> tuple[str, bool]:
    """(name, whether the bytes are in the other order)."""
    if not isinstance(record, Record) or record.kind not in ("numpy.dtype", "numpy.dtype.dtype"):
        raise NotKnown
    state = record.state if type(record.state) is tuple else (3, "|", None, None)
    if len(state) < 4 or state[2] is not None or state[3] is not None or not record.args:
        raise NotKnown
    given = record.args[0]
    if isinstance(given, Global):
        name = given.name
        if name not in EXTENDED:
            raise NotKnown
    else:
        code = given.decode("latin-1") if type(given) is bytes else given
        if type(code) is not str or code[:1] not in "biufc":
            raise NotKnown
        try:
            name = np.dtype(code).name
        except (TypeError, ValueError, SyntaxError) as error:
            raise NotKnown from error
    if name not in ITEMSIZE:
        raise NotKnown
    order = state[1].decode("latin-1") if type(state[1]) is bytes else state[1]
    return name, order == ">" and ITEMSIZE[name] > 1


def _storage(data: Any, dtype: str, swapped: bool) -> Storage:
    if type(data) is str:
        data = data.encode("latin-1")
    if isinstance(data, Span):
        return Storage(dtype, data.length, data.access, data.offset, swapped)
    if not isinstance(data, bytes):
        raise NotKnown
    return Storage(dtype, len(data), Memory(data), 0, swapped)


def _tensor(shape: Any, kind: tuple[str, bool], fortran: bool, data: Any) -> Tensor:
    """An array, its claims held against its bytes."""
    dtype, swapped = kind
    shape = (shape,) if type(shape) is int else shape
    if type(shape) is not tuple or not all(type(axis) is int and axis >= 0 for axis in shape):
        raise ValueError("a shape that is not whole numbers")
    storage = _storage(data, dtype, swapped)
    if safe_nbytes(shape, dtype) != storage.nbytes:
        raise ValueError(f"an array of shape {shape} with {storage.nbytes} bytes")
    order = range(len(shape)) if fortran else range(len(shape) - 1, -1, -1)
    strides, step = [0] * len(shape), 1
    for axis in order:
        strides[axis] = step
        step *= shape[axis]
    return Tensor(storage, dtype, shape, tuple(strides), numpy=True)


def _reconstructed(record: Record, value: Value) -> Tensor:
    made = record.args[0] if record.args else None
    if not isinstance(made, Global) or made.kind not in _ARRAYS:
        raise NotKnown
    return _of_state(record.state, value)


def _of_state(state: Any, value: Value) -> Tensor:
    """An array from what NumPy's `__setstate__` takes."""
    if type(state) is not tuple or len(state) not in (4, 5):
        raise NotKnown
    shape, dtype, fortran, data = state[-4:]
    return _tensor(value(shape), _dtype(dtype), bool(fortran), _bytes(data, value))


def _bytes(data: Any, value: Value) -> Any:
    return data if isinstance(data, Span) else value(data)


def _from_buffer(record: Record, value: Value) -> Tensor:
    data, dtype, shape, order = record.args[:4]
    if order not in ("C", "F") or len(record.args) > 4:
        raise NotKnown
    return _tensor(value(shape), _dtype(dtype), order == "F", _bytes(data, value))


def _jax(record: Record, value: Value) -> Tensor:
    return _of_state(record.args[2], value)


def _scalar(record: Record, value: Value) -> Any:
    dtype, data = record.args
    if isinstance(dtype, Record) and dtype.args and str(dtype.args[0])[:1] == "U" and type(dtype.state) is tuple:
        order = "utf-32-be" if dtype.state[1:2] == (">",) else "utf-32-le"
        return bytes(value(data)).decode(order).rstrip("\0")
    return load(_tensor((), _dtype(dtype), False, _bytes(data, value)), "a scalar").item()


def _is_wrapper(record: Record) -> bool:
    return record.kind == _JOBLIB and type(record.state) is dict


def behind(record: Record, stream: Stream, pickled: Callable[[Stream], Any]) -> None:
    """Find the bytes that joblib puts into the file right behind the record of an array.

    Args:
        record: it has just got its state.
        stream: it stands behind that.
        pickled: reads the pickle that stands there for an array of objects.

    Raises:
        ValueError: there are fewer bytes than the array needs.
    """
    if not _is_wrapper(record):
        return
    try:
        dtype, _ = _dtype(record.state.get("dtype"))
    except NotKnown:
        if _has_objects(record.state.get("dtype")):
            pickled(stream)
            return
        raise ValueError("an array of a dtype that is not known") from None
    shape = record.state.get("shape")
    if type(shape) is not tuple or not all(type(axis) is int and axis >= 0 for axis in shape):
        raise ValueError("a shape that is not whole numbers")
    if record.state.get("numpy_array_alignment_bytes") is not None:
        stream.skip(stream.read(1)[0])
    count = math.prod(shape) * ITEMSIZE[dtype]
    record.items = [Span(stream.access, stream.skip(count), count)]


def _has_objects(record: Any) -> bool:
    return isinstance(record, Record) and record.kind == "numpy.dtype" and record.args[:1] in (("O8",), ("O",), ("O4",))


def _joblib(record: Record, value: Value) -> Tensor:
    if not _is_wrapper(record) or len(record.items) != 1:
        raise NotKnown
    state = record.state
    return _tensor(state["shape"], _dtype(state["dtype"]), state.get("order") == "F", record.items[0])


KNOWN: dict[str, Callable[[Record, Value], Any]] = {
    **dict.fromkeys(_RECONSTRUCT, _reconstructed),
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.core.numeric._frombuffer": _from_buffer,
    _JOBLIB: _joblib,
    "jax": _jax,
}
"""What records of these kinds mean; "jax" stands for all names that `is_jax_array` knows."""
