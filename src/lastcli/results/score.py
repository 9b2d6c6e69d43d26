"""Results of `score`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lastcli.results.anatomy import Anatomy
from lastcli.results.base import UNDOCUMENTED, OfModel, PerSet, UnstableStates

__all__ = ["LayerScore", "ScoreResult"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerScore(PerSet):
    """Energies and scores of one layer, (sets, N) each."""

    per_set: ClassVar[tuple[str, ...]] = ("energy", "score")

    name: str
    states: int
    sets: int = 1
    energy: Any
    score: Any
    max_abs_pole: float


@dataclass(frozen=True, kw_only=True)
class ScoreResult(OfModel):
    """Energy and score of every state."""

    command: ClassVar[str] = "score"

    method: str
    layers: tuple[LayerScore, ...]
    criterion: str = ""
    allocation: str = ""
    compat: str | None = None
    unstable: tuple[UnstableStates, ...] = ()
    notes: tuple[str, ...] = ()
    anatomy: Anatomy | None = field(default=None, metadata={UNDOCUMENTED: True})
