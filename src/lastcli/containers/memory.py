"""A checkpoint that exists in memory only: a reduced model before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lastcli.containers.base import Reader, TensorSource

__all__ = ["MemoryReader"]


class MemoryReader(Reader):
    """Reads tensors from their sources; `path` only names where the model came from."""

    def __init__(self, path: Path, sources: Sequence[TensorSource]):
        super().__init__(path, "memory", {source.info.name: source.info for source in sources})
        self._sources = {source.info.name: source for source in sources}

    def load(self, name: str) -> np.ndarray:
        """The tensor as its source gives it."""
        return self._sources[name].load()
