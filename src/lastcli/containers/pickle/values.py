"""What an inert pickle machine makes: plain values of Python, and records of everything else.

Nothing here is built or called for the file: a `Global` is a name, a `Record` is what a pickle would have called it
with. `Tensor` is where bytes lie and how they are to be seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lastcli.containers.dtypes import ITEMSIZE, dtype_of

__all__ = ["Access", "Global", "Memory", "Record", "Span", "Storage", "Tensor", "Unread", "load"]


class Access(Protocol):
    """Bytes by position, as `inputs.RandomAccess` gives them."""

    size: int

    def read(self, offset: int, count: int, what: str) -> bytes:
        """`count` bytes from `offset`."""


class Memory:
    """Bytes that are held, by position."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, count: int, what: str) -> bytes:
        """See `Access`.

        Raises:
            ValueError: there are not so many.
        """
        if count < 0 or offset < 0 or offset + count > self.size:
            raise ValueError(f"{what} ends too early")
        return self.data[offset : offset + count]


@dataclass(frozen=True, eq=False)
class Global:
    """A class or function by its name; never looked up."""

    module: str
    name: str

    @property
    def kind(self) -> str:
        """Module and name."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """What a pickle would have built: the global it calls, with what, and what it puts in afterwards.

    Attributes:
        state: what BUILD would have given it.
        items: what would have been appended or added.
        pairs: keys and values that would have been set.
    """

    made: Global
    args: tuple[Any, ...] = ()
    options: Mapping[Any, Any] = field(default_factory=dict)
    state: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Module and name of its class or function."""
        return self.made.kind


@dataclass(frozen=True, eq=False)
class Span:
    """A long run of bytes in a file, not read yet."""

    access: Access
    offset: int
    length: int

    def read(self) -> bytes:
        """The bytes."""
        return self.access.read(self.offset, self.length, "bytes of a pickle")


@dataclass(eq=False)
class Storage:
    """The bytes of one or several tensors.

    Attributes:
        dtype: of the storage; None where it is bytes only, "q…" where it is quantised.
        nbytes: how many the pickle claims.
        access: where they lie, once that is known.
    """

    dtype: str | None
    nbytes: int
    access: Access | None = None
    offset: int = 0
    swapped: bool = False


@dataclass(eq=False)
class Tensor:
    """A view of a storage: offset and strides count elements, as PyTorch does.

    Attributes:
        conj: whether it shows the conjugate of what is stored; `neg` the negative.
        numpy: whether it was an array of NumPy or JAX, not of PyTorch.
    """

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    conj: bool = False
    neg: bool = False
    numpy: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """The first element of the storage behind all of the tensor's."""
        return self.offset + 1 + sum((axis - 1) * stride for axis, stride in zip(self.shape, self.strides, strict=True))


@dataclass(frozen=True, eq=False)
class Unread:
    """A tensor of a form that is not read: sparse, quantised, without bytes."""

    kind: str


def load(tensor: Tensor, what: str) -> np.ndarray:
    """The tensor as it looks, C-contiguous.

    Raises:
        InputError: the bytes are not there.
    """
    dtype = dtype_of(tensor.dtype)
    if tensor.size == 0:
        return np.zeros(tensor.shape, dtype)
    storage = tensor.storage
    if storage.access is None:
        raise ValueError("a storage without bytes")
    size = ITEMSIZE[tensor.dtype]
    first, count = tensor.offset, tensor.end - tensor.offset
    raw = storage.access.read(storage.offset + first * size, count * size, what)
    # elements as plain bytes: NumPy cannot stride over the eight-bit floats of ml_dtypes
    flat = np.frombuffer(_native(raw, tensor.dtype) if storage.swapped else raw, f"V{size}")
    elements = np.lib.stride_tricks.as_strided(
        flat, tensor.shape, tuple(stride * size for stride in tensor.strides), writeable=False
    )
    array = np.array(elements, order="C", copy=None).view(dtype)
    if tensor.conj:
        array = np.conj(array)
    return -array if tensor.neg else array


def _native(raw: bytes, dtype: str) -> bytes:
    """Bytes of the other order turned round."""
    unit = ITEMSIZE[dtype] // (2 if dtype.startswith("complex") else 1)
    return np.frombuffer(raw, f"V{unit}").view(np.uint8).reshape(-1, unit)[:, ::-1].tobytes()
