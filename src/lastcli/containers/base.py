"""What every open checkpoint offers: named tensors, their bytes only when asked.

A container knows bytes. It does not know what a tensor means. Nested formats (msgpack, orbax, torch) name a leaf by
its path joined with "/"; flat formats (safetensors) keep their own names.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from lastcli.containers import structure
from lastcli.containers.digests import fingerprint, raw, take_digests
from lastcli.containers.dtypes import dtype_of
from lastcli.containers.inputs import shown
from lastcli.errors import InputError

__all__ = ["MODEL_KEY", "Reader", "TensorInfo", "TensorSource"]

MODEL_KEY = "last.model"
"""The metadata key under which a file written from one of several models keeps what that one is called."""


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape and dtype of a tensor.

    Attributes:
        name: the name in the file, path parts joined by "/" where the format nests.
        shape: the shape; () for a scalar.
        dtype: NumPy's name ("float32", "int64", "complex64", "bool") or ml_dtypes' ("bfloat16", "float8_e4m3fn", ...).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> TensorInfo:
        """That of an array."""
        return cls(name, tuple(array.shape), array.dtype.name, array.nbytes)

    @property
    def blank(self) -> np.ndarray:
        """Zeros of that shape and dtype that take no memory, to see what becomes of them; read only."""
        return np.broadcast_to(np.zeros((), dtype_of(self.dtype)), self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        product = 1
        for axis in self.shape:
            product *= axis
        return product


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written: what it is, and how to get its bytes when its turn comes.

    Attributes:
        info: what it is.
        load: gives it whole.
        pieces: gives its bytes in order, so that no more than some of them are in memory; None where only `load` does.
            It may be called again, and by several threads.
        prove: told the fingerprint of what `pieces` gave; raises where that is not what the file says.
    """

    info: TensorInfo
    load: Callable[[], np.ndarray]
    pieces: Callable[[], Iterator[memoryview]] | None = None
    prove: Callable[[str], None] | None = None

    def named(self, name: str) -> TensorSource:
        """The same tensor under another name."""
        return replace(self, info=replace(self.info, name=name))

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> TensorSource:
        """A source over an array in memory; the array is made C-contiguous."""
        array = np.asarray(array, order="C")
        return cls(TensorInfo.of(name, array), lambda: array)

    @classmethod
    def copied(cls, reader: Reader, name: str) -> TensorSource:
        """A tensor of an open file, as it is."""
        pieces = partial(reader.load_pieces, name) if reader.in_pieces else None
        return cls(reader.tensors[name], partial(reader.read, name), pieces, partial(reader.prove, name))


@dataclass
class Reader(abc.ABC):
    """An open checkpoint. Use as a context manager, or call `close`.

    Attributes:
        kind: the name of its container.
        path: the file or folder.
        tensors: every tensor that a rewritten checkpoint will carry, in file order.
        metadata: the file's own text metadata; empty where the format has none.
        extras: leaves that are not tensors (a step counter, an epoch, a string), by path, JSON-like values.
        dropped: what is in the file but will not be carried on (optimizer state), as one sentence each.
        digests: the sha256 of every tensor by name (`digests.fingerprint`), as the file says it; empty where it says
            nothing. They are taken out of the metadata.
        fingerprints: the sha256 of the tensors that were read as a whole and hashed, as far as anybody did.
        unnamed: all leaves in order, where the file gives them no names and nothing else did; their names are numbers.
        model: what the container calls the model it reads, None where it has no other.
        asked: what the user calls the model meant, as far as the container has not settled it.
        settings: what training code says of its run beside the tensors, numbers and texts by path, where that is no
            longer among the extras: objects of other programs are read for it, and not carried on.
    """

    shares: ClassVar[bool] = False
    """Whether names that are one tensor have its bytes in the file once."""
    in_pieces: ClassVar[bool] = False
    """Whether `load_pieces` reads by position: no tensor is in memory as a whole, several threads may read."""

    path: Path
    kind: str = ""
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(init=False, default_factory=dict)
    fingerprints: dict[str, str] = field(init=False, default_factory=dict)
    unnamed: tuple[TensorInfo, ...] = field(init=False, default=())
    model: str | None = field(init=False, default=None)
    asked: str | None = field(init=False, default=None)
    settings: Mapping[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.metadata, self.digests = take_digests(self.metadata, self.tensors, shown(self.path, 1000))

    def read(self, name: str) -> np.ndarray:
        """The tensor's exact bits as a C-contiguous array (ml_dtypes for bfloat16 and the float8s).

        Raises:
            InputError: the bytes are missing, cut short, do not fit the declared shape, or are not those that the
                file's digest is of.
            KeyError: no such tensor.
        """
        array = self.load(name)
        if name in self.digests:
            self.prove(name, fingerprint(array))
        return array

    def prove(self, name: str, found: str) -> None:
        """Take note of the fingerprint of a tensor's bytes, and hold it against the file's digest, where there is one.

        Raises:
            InputError: they differ.
        """
        self.fingerprints[name] = found
        digest = self.digests.get(name)
        if digest is not None and found != digest:
            raise InputError(
                f"{shown(self.path, 1000)}: tensor '{shown(name)}' is not as it was written (its sha256 differs); the "
                "file is damaged, was changed by another program, or its description belongs to another file: copy it "
                "again with the description that was written with it."
            )

    def load_pieces(self, name: str) -> Iterator[memoryview]:
        """The bytes of what `load` gives, in order; none of them changes later. Not held against the digest.

        Raises:
            InputError: as `load`.
        """
        yield raw(self.load(name))

    @property
    def shared(self) -> tuple[tuple[str, ...], ...]:
        """Groups of names that are one tensor in the file, or were in the file that it was converted from."""
        return tuple(tuple(name for name in group if name in self.tensors) for group in self._form.get("shared", []))

    @property
    def beside(self) -> frozenset[str]:
        """Tensors that are carried and stand beside the model: those of a scaler, statistics, other models."""
        return frozenset(name for name in self._form.get("beside", {}) if name in self.tensors)

    @property
    def others(self) -> dict[str, frozenset[str]]:
        """Of every other model of the file that is read with this one, its tensors."""
        names = self._form.get("others", [])
        return {name: frozenset(t for t in self.beside if t.startswith(f"{name}/")) for name in names}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, as often as they are in the file."""
        return sum(info.nbytes for name, info in self.tensors.items() if name not in self.second_names)

    @property
    def second_names(self) -> frozenset[str]:
        """Names of tensors that have their bytes under another name."""
        return frozenset(name for group in self.shared for name in group[1:]) if self.shares else frozenset()

    def leave_model(self, model: str, names: Collection[str]) -> None:
        """Leave out the tensors of another model, as if they were not in the file, and say so."""
        gone = set(names)
        self.tensors = {name: info for name, info in self.tensors.items() if name not in gone}
        count = f"{len(gone)} tensor{'s' * (len(gone) != 1)}"
        sentence = f"The other model '{shown(model)}' ({count}) is not carried on; --keep-others carries it as it is."
        self.dropped = (*self.dropped, sentence)

    @property
    def _form(self) -> Mapping[str, Any]:
        return structure.of(self.extras).get("torch", {})

    @abc.abstractmethod
    def load(self, name: str) -> np.ndarray:
        """What `read` gives, not yet held against the digest.

        Raises:
            InputError: the bytes are missing, cut short or do not fit the declared shape.
            KeyError: no such tensor.
        """

    def close(self) -> None:  # noqa: B027 (most readers hold nothing open)
        """Release the file."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
