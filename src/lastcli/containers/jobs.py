"""What a container's writer is given, and the record of what it wrote, for the comparison afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lastcli.containers import inputs
from lastcli.containers.base import Reader, TensorInfo, TensorSource
from lastcli.containers.digests import Running, digests_text, fingerprint, raw
from lastcli.containers.extras import EXTRAS_KEY, dumps
from lastcli.containers.inputs import shown
from lastcli.containers.structure import without
from lastcli.containers.tree import build
from lastcli.errors import OutputError

if TYPE_CHECKING:
    from lastcli.containers.hashing import Hasher

__all__ = ["Job"]


class FinishedShards(Protocol):
    """See `finished.Finished`."""

    def take(self, path: Path, sources: Sequence[TensorSource]) -> dict[str, str] | None:
        """Fingerprints of a shard's tensors if it is there already."""

    def add(self, path: Path, digests: Mapping[str, str]) -> None:
        """One more is finished."""


@dataclass
class Job:
    """One output to be written.

    Attributes:
        path: the output as the user named it, for messages.
        sources: the tensors, in order.
        metadata: text to keep with the file.
        extras: leaves that are not tensors, and the reserved keys.
        native: `Container.native` of the container to write.
        shows: `Container.shows` of it.
        template: an open reader whose ways (NumPy scalars, wrappers) the output follows.
        shard_bytes: the largest shard; None for one file.
        progress: told the bytes of every tensor written.
        late: gives the metadata as they are in the end, of the same length as `metadata`; see `settle`.
        finished: the shards that an interrupted run finished, None where they are not kept.
        shard_written: told the file of every shard that is complete.
        digests: filled by `load` and `pieces`: what was written.
    """

    path: Path
    sources: tuple[TensorSource, ...]
    metadata: Mapping[str, str]
    extras: Mapping[str, Any]
    native: Callable[[Any], bool]
    shows: Collection[str] = ()
    template: Reader | None = None
    shard_bytes: int | None = None
    progress: Callable[[int], None] | None = None
    late: Callable[[], Mapping[str, str]] | None = None
    finished: FinishedShards | None = None
    shard_written: Callable[[Path], None] | None = None
    digests: dict[str, str] = field(default_factory=dict)
    _hashed: list[tuple[TensorSource, Running]] = field(default_factory=list)

    @property
    def where(self) -> str:
        """The output's name for messages."""
        return shown(self.path, 1000)

    def load(self, source: TensorSource) -> np.ndarray:
        """The tensor's bytes, checked against what was announced, and recorded.

        Raises:
            OutputError: the array is not of the announced shape and dtype.
        """
        array = self._loaded(source)
        self.digests[source.info.name] = fingerprint(array)
        if self.progress is not None:
            self.progress(source.info.nbytes)
        return array

    def _loaded(self, source: TensorSource) -> np.ndarray:
        info = source.info
        array = np.asarray(source.load(), order="C")
        if array.shape != info.shape or array.dtype.name != info.dtype:
            raise OutputError(
                f"{self.where}: tensor '{shown(info.name)}' was announced as {info.dtype} {info.shape} but is "
                f"{array.dtype.name} {array.shape}; nothing was written."
            )
        return array

    def pieces(self, source: TensorSource, hasher: Hasher) -> Iterator[memoryview]:
        """What `load` gives as bytes in order, in pieces, hashed while they are written.

        Raises:
            OutputError: the source has more or fewer bytes than were announced.
            InputError: they are not those that the input's digest is of.
        """
        info = source.info
        running, count = Running(info.dtype, info.shape), 0
        for piece in _in_pieces(self._loaded(source)) if source.pieces is None else source.pieces():
            hasher.add(running, piece)
            count += len(piece)
            yield piece
            if self.progress is not None:
                self.progress(len(piece))
        if count != info.nbytes:
            raise OutputError(
                f"{self.where}: tensor '{shown(info.name)}' was announced with {info.nbytes:,} bytes but has "
                f"{count:,}; nothing was written."
            )
        if source.pieces is None:
            hasher.wait()  # so that the array is let go of before the next one is made
        self._hashed.append((source, running))

    def take_digests(self, hasher: Hasher) -> None:
        """Wait for the digests of all that was written.

        Raises:
            InputError: a tensor that was copied is not what the input's digest says.
        """
        hasher.wait()
        for source, running in self._hashed:
            self.digests[source.info.name] = running.text()
            if source.prove is not None:
                source.prove(running.text())
        self._hashed.clear()

    def settle(self) -> None:
        """Wait for the metadata that were not known before."""
        if self.late is not None:
            self.metadata, self.late = self.late(), None
            self.__dict__.pop("text", None)

    def digests_text(self, names: Iterable[str] | None = None) -> str:
        """The digests, of all tensors or of these, as the metadata hold them; zeros for what is not yet written."""
        return digests_text(self.digests, (source.info.name for source in self.sources) if names is None else names)

    @cached_property
    def own(self) -> dict[str, Any]:
        """The extras that the container holds in its own way."""
        native = self.native
        return {name: value for name, value in self.extras.items() if not name.startswith("last.") and native(value)}

    @cached_property
    def text(self) -> dict[str, str]:
        """The metadata, and in them, as one text, the extras that the container does not hold in its own way."""
        rest = {key: item for key, item in without(self.extras, self.shows).items() if key not in self.own}
        return {**self.metadata, **({EXTRAS_KEY: dumps(rest)} if rest else {})}

    def tree(self) -> dict[str, Any]:
        """The sources and the container's own extras, nested as the paths of their names say.

        Raises:
            OutputError: one name is a branch of another.
        """
        structure = {key: value for key, value in self.extras.items() if key.startswith("last.")}
        sources = {source.info.name: source for source in self.sources}
        return build(sources, {**self.own, **structure}, self.where)

    def infos(self) -> dict[str, TensorInfo]:
        """What the output will hold."""
        return {source.info.name: source.info for source in self.sources}


def _in_pieces(array: np.ndarray) -> Iterator[memoryview]:
    data = raw(array)
    for start in range(0, len(data), inputs.PIECE):
        yield data[start : start + inputs.PIECE]
