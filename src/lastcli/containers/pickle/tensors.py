"""What records of PyTorch mean: tensors over storages, in every form that its versions have written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lastcli.containers.dtypes import ITEMSIZE
from lastcli.containers.inputs import shown
from lastcli.containers.pickle.arrays import NotKnown
from lastcli.containers.pickle.values import Global, Record, Storage, Tensor, Unread

__all__ = ["KNOWN", "itemsize", "storage_of"]

Value = Callable[[Any], Any]

_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "ComplexHalf": "complex32",
    "Untyped": None,
    "QInt8": "qint8",
    "QUInt8": "quint8",
    "QInt32": "qint32",
    "QUInt4x2": "quint4x2",
    "QUInt2x4": "quint2x4",
}
# dtypes that PyTorch has and `last` does not carry
_OTHER_SIZES = {"complex32": 4, "qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1}


def storage_of(made: Any, count: Any) -> Storage:
    """The storage that a reference of PyTorch asks for.

    Args:
        made: its class.
        count: its elements.

    Raises:
        ValueError: no storage of PyTorch.
    """
    name = made.name.removesuffix("Storage") if isinstance(made, Global) else ""
    if name not in _STORAGES or type(count) is not int or count < 0:
        raise ValueError(f"the storage of type {shown(getattr(made, 'name', made))} is not known")
    dtype = _STORAGES[name]
    return Storage(dtype, count * itemsize(dtype))


def itemsize(dtype: str | None) -> int:
    """Bytes of an element; those of a storage that is bytes only are one."""
    return 1 if dtype is None else ITEMSIZE.get(dtype) or _OTHER_SIZES.get(dtype, 1)


def _view(storage: Any, offset: Any, shape: Any, strides: Any, dtype: str | None, metadata: Any) -> Tensor | Unread:
    if not isinstance(storage, Storage):
        raise NotKnown
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a tensor with an impossible shape, stride or offset")
    dtype = dtype or storage.dtype or "uint8"
    if dtype.startswith("q"):
        return Unread("quantized")
    said = metadata if type(metadata) is dict else {}
    tensor = Tensor(
        storage, dtype, tuple(shape), tuple(strides), offset, said.get("conj") is True, said.get("neg") is True
    )
    if tensor.size and tensor.end * itemsize(dtype) > storage.nbytes:
        raise ValueError("a tensor that goes beyond its storage")
    return tensor


def _v2(record: Record, value: Value) -> Tensor | Unread:
    storage, offset, shape, strides, *more = map(value, record.args)
    return _view(storage, offset, shape, strides, None, more[2] if len(more) > 2 else None)


def _v3(record: Record, value: Value) -> Tensor | Unread:
    storage, offset, shape, strides, _, _, dtype, *more = map(value, record.args)
    if not isinstance(dtype, Global) or dtype.module != "torch":
        raise NotKnown
    return _view(storage, offset, shape, strides, dtype.name, more[0] if more else None)


def _first(record: Record, value: Value) -> Any:
    """Parameters, and tensors of devices that were saved as another's: the tensor is the first argument."""
    found = value(record.args[0])
    if not isinstance(found, Tensor | Unread):
        raise NotKnown
    return found


def _of_type(record: Record, value: Value) -> Any:
    """A subclass with the bytes of a tensor: the tensor."""
    made, kind, args = record.args[:3]
    found = value(Record(made, args)) if isinstance(made, Global) and type(args) is tuple else None
    if isinstance(found, Tensor | Unread):
        return found
    return Unread(kind.kind if isinstance(kind, Global) else "of a class of its own")


def _unread(kind: str) -> Callable[[Record, Value], Any]:
    return lambda record, value: Unread(kind)


def _size(record: Record, value: Value) -> tuple[int, ...]:
    axes = value(record.args[0]) if record.args else ()
    if not all(type(axis) is int for axis in axes):
        raise NotKnown
    return tuple(axes)


_UTILS: dict[str, Callable[[Record, Value], Any]] = {
    "_rebuild_tensor": _v2,
    "_rebuild_tensor_v2": _v2,
    "_rebuild_tensor_v3": _v3,
    "_rebuild_parameter": _first,
    "_rebuild_parameter_with_state": _first,
    "_rebuild_device_tensor_from_numpy": _first,
    "_rebuild_device_tensor_from_cpu_tensor": _first,
    "_rebuild_xla_tensor": _first,
    "_rebuild_qtensor": _unread("quantized"),
    "_rebuild_sparse_tensor": _unread("sparse"),
    "_rebuild_sparse_csr_tensor": _unread("sparse"),
    "_rebuild_nested_tensor": _unread("nested"),
    "_rebuild_meta_tensor_no_storage": _unread("on the device meta, without values"),
    "_rebuild_wrapper_subclass": _unread("of a class without a storage of its own"),
}

KNOWN: dict[str, Callable[[Record, Value], Any]] = {
    **{f"torch._utils.{name}": known for name, known in _UTILS.items()},
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch.tensor._rebuild_from_type_v2": _of_type,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch.Size": _size,
}
"""What records of these kinds mean."""
