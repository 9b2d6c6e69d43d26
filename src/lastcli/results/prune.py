"""Results of `prune`, and of its searches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lastcli.results.anatomy import Anatomy
from lastcli.results.base import UNDOCUMENTED, OfModel, PerSet, UnstableStates

__all__ = ["Attempt", "LayerPruned", "Measured", "PruneResult", "SearchResult", "SearchStep"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerPruned(PerSet):
    """One layer before and after. `kept` is (sets, K); errors are of the layer's transfer function.

    Attributes:
        states: stored states of one index set after pruning; `states_before` before.
        hinf_error_bound: a-priori bound on the H∞ error (plain truncation), else None.
        hinf_error: H∞ error of the stored layer; `hinf_exact`: whether it is proved, else it is a lower bound.
        h2_error: H2 error relative to the layer without its D. dc_error: of the response to constants, relative.
        data_error: the same of the output on the calibration inputs, where they were looked at.
    """

    per_set: ClassVar[tuple[str, ...]] = ("kept",)

    name: str
    states: int
    kept: Any
    hinf_error_bound: float | None = None
    h2_error: float | None = None
    hinf_error: float | None = None
    hinf_exact: bool | None = None
    dc_error: float | None = None
    data_error: float | None = None
    states_before: int | None = None
    sets: int = 1


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """One model tried by the search for the largest ratio within a drop; `compact` where it was the reduced model
    itself, at its own size, and not a mask."""

    ratio: float
    states: int
    value: float
    drop: float
    within: bool
    p_value: float | None = None
    compact: bool = False


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One method with one refit that `--method best` tried; `steps` are its stages.

    `ratio`, `states` and `drop` are of the smallest model within the bound, None where it found none that is smaller
    than what was found before.
    """

    method: str
    refit: str
    steps: int
    outcome: str
    seconds: float
    ratio: float | None = None
    states: int | None = None
    drop: float | None = None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What `--max-drop` searched and found; `value` and `drop` are of the compact model, None where nothing met it.

    `attempts` are those of `--method best`, empty for any other; `steps` then are of the one that was kept.
    """

    max_drop: float
    metric: str
    n: int
    baseline: float
    value: float | None
    drop: float | None
    steps: tuple[SearchStep, ...] = ()
    significance: float | None = None
    data: str | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def met(self) -> bool:
        """Whether any model stayed within the drop."""
        return self.value is not None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Original and reduced model on the same split; differences are of their outputs, None where not available."""

    metric: str
    n: int
    baseline: float
    value: float
    drop: float
    p_value: float | None = None
    max_difference: float | None = None
    mean_difference: float | None = None
    data: str | None = None


@dataclass(frozen=True, kw_only=True)
class PruneResult(OfModel):
    """Before and after. `out` is None for a dry run; `bytes_after` is then the size that would be written.

    `bytes_before` is the size of the file, without what it holds besides the model and is not carried on.
    `states_after` may be less than was asked for, or more where floors are; a note says why.
    """

    command: ClassVar[str] = "prune"

    method: str
    refit: str
    ratio: float
    states_before: int
    states_after: int
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    layers: tuple[LayerPruned, ...]
    out: str | None
    steps: int = 1
    recipe: str | None = None
    state_bytes_before: int | None = None
    state_bytes_after: int | None = None
    multiply_adds_before: int | None = None
    multiply_adds_after: int | None = None
    layout: str = "ragged"
    dry_run: bool = False
    compat: str | None = None
    search: SearchResult | None = None
    measured: Measured | None = None
    unstable: tuple[UnstableStates, ...] = ()
    notes: tuple[str, ...] = ()
    anatomy: Anatomy | None = field(default=None, metadata={UNDOCUMENTED: True})
