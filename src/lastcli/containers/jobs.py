"""What a container's writer is given, and the record of what it wrote, for the comparison afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.base import Reader, TensorInfo, TensorSource
from lastcli.containers.digests import digests_text, fingerprint
from lastcli.containers.extras import EXTRAS_KEY, dumps
from lastcli.containers.inputs import shown
from lastcli.containers.structure import without
from lastcli.containers.tree import build
from lastcli.errors import OutputError

__all__ = ["Job"]


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
        digests: filled by `load`: what was written.
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
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The output's name for messages."""
        return shown(self.path, 1000)

    def load(self, source: TensorSource) -> np.ndarray:
        """The tensor's bytes, checked against what was announced, and recorded.

        Raises:
            OutputError: the array is not of the announced shape and dtype.
        """
        info = source.info
        array = np.asarray(source.load(), order="C")
        if array.shape != info.shape or array.dtype.name != info.dtype:
            raise OutputError(
                f"{self.where}: tensor '{shown(info.name)}' was announced as {info.dtype} {info.shape} but is "
                f"{array.dtype.name} {array.shape}; nothing was written."
            )
        self.digests[info.name] = fingerprint(array)
        if self.progress is not None:
            self.progress(info.nbytes)
        return array

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
