"""What the registry knows of a kind of checkpoint: how it is recognised, opened and written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lastcli.containers.base import Reader, TensorInfo, TensorSource

if TYPE_CHECKING:
    from lastcli.containers.hashing import InputHash
    from lastcli.containers.jobs import Job

__all__ = ["Container", "Folder", "IsModel"]

Sources = tuple[TensorSource, ...]
IsModel = Callable[[Mapping[str, TensorInfo]], bool]
"""Whether there is a model among tensors, as one who knows models says."""


class Folder(NamedTuple):
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
        write: writes a `Job` to the temporary path given; None where the format is only read.
        open_known: as `open`, and what tells a model from other tensors; None where one file never holds several.
        open_like: (path, leaves in order) → the open checkpoint, for files whose leaves have no names; None where they
            have.
        arrange: (tensors, extras to write) → the same as the file will show them when it is read back.
        reopen: (temporary path, what was written) → the open checkpoint, where the file alone does not tell all.
        native: whether a leaf that is no tensor has its own place in the file and is read back as it was.
        shows: the parts of the structure (`structure`) that the file shows by itself.
        origin: the open input → text that the format wants to hold about where its tensors come from; metadata that
            are there are stronger.
        hashing: the open input → the sha256 that names it in a record; None for that of its bytes.
        keeps_metadata: whether the file carries text metadata; else the sidecar NAME.json holds the description.
        shards: whether it can be written as a folder of shards.
        settles: whether `write` asks the job for metadata that are known late once the tensors are written.
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
    write: Callable[[Path, Job], None] | None
    native: Callable[[Any], bool]
    keeps_metadata: bool
    open_known: Callable[[Path, str | None, IsModel], Reader] | None = None
    open_like: Callable[[Path, Sequence[TensorInfo]], Reader] | None = None
    arrange: Callable[[Sources, dict[str, Any]], tuple[Sources, dict[str, Any]]] = lambda sources, extras: (
        sources,
        extras,
    )
    reopen: Callable[[Path, Job], Reader] | None = None
    certain: bool = True
    origin: Callable[[Reader], Mapping[str, str]] = lambda reader: {}
    hashing: Callable[[Reader], InputHash | None] = lambda reader: None
    folder: Folder | None = None
    shows: Collection[str] = ()
    shards: bool = False
    several_models: bool = False
    settles: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether a checkpoint is always a folder."""
        return not self.suffixes

    def makes_folder(self, shard_bytes: int | None) -> bool:
        """Whether an output is a folder: always, or because it is written in shards."""
        return self.is_folder or shard_bytes is not None
