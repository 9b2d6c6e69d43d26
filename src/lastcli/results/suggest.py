"""Results of `inspect --suggest`: a description of the model to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lastcli.results.base import Result

__all__ = ["LikelyTensor", "SuggestResult"]


@dataclass(frozen=True, kw_only=True)
class LikelyTensor:
    """A tensor that looks like part of a state space layer."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SuggestResult(Result):
    """A model description to begin with, of `last inspect --suggest`.

    Attributes:
        description: what a sidecar says: the family, its options or a map; None where no family fits by itself.
        check: what it assumes, as a clause; empty where it assumes nothing.
        tensors: the tensors that it was made from; empty where the model is known.
    """

    command: ClassVar[str] = "suggest"

    checkpoint: str
    description: Mapping[str, Any] | None
    check: str = ""
    tensors: tuple[LikelyTensor, ...] = ()
    notes: tuple[str, ...] = ()
