"""What every container offers: how it is known, and named tensors, their bytes only when asked.

A container knows bytes. It does not know what a tensor means. Nested formats (msgpack, orbax, torch) name a leaf by
its path joined with "/"; flat formats (safetensors) keep their own names.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.containers.digests import fingerprint, take_digests
from lastcli.containers.inputs import shown
from lastcli.errors import InputError

if TYPE_CHECKING:
    from lastcli.containers.jobs import Job

__all__ = ["Container", "Folder", "Reader", "TensorInfo", "TensorSource"]


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

    @property
    def size(self) -> int:
        """Number of elements."""
        product = 1
        for axis in self.shape:
            product *= axis
        return product


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written: what it is, and how to get its bytes when its turn comes."""

    info: TensorInfo
    load: Callable[[], np.ndarray]

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> TensorSource:
        """A source over an array in memory; the array is made C-contiguous."""
        array = np.asarray(array, order="C")
        info = TensorInfo(name, tuple(array.shape), array.dtype.name, array.nbytes)
        return cls(info, lambda: array)


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
    """

    path: Path
    kind: str = ""
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(init=False, default_factory=dict)

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
        digest = self.digests.get(name)
        if digest is not None and fingerprint(array) != digest:
            raise InputError(
                f"{shown(self.path, 1000)}: tensor '{shown(name)}' is not as it was written (its sha256 differs); the "
                "file is damaged, was changed by another program, or its description belongs to another file: copy it "
                "again with the description that was written with it."
            )
        return array

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


@dataclass(frozen=True)
class Folder:
    """How a folder of a container is known.

    Attributes:
        mark: what makes it one, as a sentence to the user says it.
        holds: (folder, names in it) → whether it is one.
        stranger: folder → the path within it of something that is no part of the one checkpoint it holds, and would be
            lost with it; None where there is nothing else. A folder is replaced only then.
    """

    mark: str
    holds: Callable[[Path, Collection[str]], bool]
    stranger: Callable[[Path], str | None]


@dataclass(frozen=True, kw_only=True)
class Container:
    """A kind of checkpoint: how it is known, opened and written. What is heavy is imported when a function is called.

    Attributes:
        name: as results and `write(kind=...)` say it.
        title: as sentences to the user say it.
        help: what it is, in one line.
        source: where the format is defined.
        page: the page that describes it, from the root of the repository.
        suffixes: the suffixes of its files, in lower case; none where a checkpoint is always a folder.
        begins: (name, first 512 bytes, size) → whether a file is of this kind.
        certain: whether `begins` is true of no other format; else the suffix is asked before it.
        folder: how a folder of this kind is known; None where a checkpoint is always one file.
        open: (path, which of several models or None) → the open checkpoint.
        write: writes a `Job` to the temporary path given.
        native: whether a leaf that is no tensor has its own place in the file and is read back as it was.
        shows: the part of the structure (`structure`) that the file shows by itself.
        keeps_metadata: whether the file carries text metadata; else the sidecar NAME.json holds the description.
        shards: whether it can be written as a folder of shards.
        several_models: whether one file can hold several models, of which the user names one.
    """

    name: str
    title: str
    help: str
    source: str
    page: str
    suffixes: tuple[str, ...]
    begins: Callable[[str, bytes, int], bool]
    open: Callable[[Path, str | None], Reader]
    write: Callable[[Path, Job], None]
    native: Callable[[Any], bool]
    keeps_metadata: bool
    certain: bool = True
    folder: Folder | None = None
    shows: str = ""
    shards: bool = False
    several_models: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether a checkpoint is always a folder."""
        return not self.suffixes

    def makes_folder(self, shard_bytes: int | None) -> bool:
        """Whether an output is a folder: always, or because it is written in shards."""
        return self.is_folder or shard_bytes is not None
