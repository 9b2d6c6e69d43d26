"""Results of the verbs that read or write a model: inspect, score, prune, convert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from lastcli.results.anatomy import Anatomy
from lastcli.results.base import UNDOCUMENTED, OfModel, PerSet, Result, UnstableStates, plain

__all__ = [
    "Attempt",
    "ConfigValue",
    "ConvertResult",
    "InspectResult",
    "LayerInfo",
    "LayerPruned",
    "LayerScore",
    "LikelyTensor",
    "Measured",
    "PruneResult",
    "ScoreResult",
    "SearchResult",
    "SearchStep",
    "SuggestResult",
]


@dataclass(frozen=True, kw_only=True)
class ConfigValue:
    """One key of the model description. `source`: file, sidecar, recipe, flag, tensors or assumed."""

    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """One layer as `inspect` shows it; `max_abs_pole` is None where no tensor was read.

    `states` counts one index set as it is scored and pruned (of a low-rank S4 layer once it is diagonalised), `sets` is
    1 for MIMO and the number of channels for multi-SISO. `inside` are sizes that only some kinds of layers have
    (`Family.inside`); in JSON they are fields of the layer like the others.
    """

    name: str
    states: int
    sets: int = 1
    inputs: int | None = None
    outputs: int | None = None
    directions: int = 1
    max_abs_pole: float | None = None
    parameters: int | None = None
    inside: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The layer's JSON."""
        own = {item.name: plain(getattr(self, item.name)) for item in fields(self) if item.name != "inside"}
        return own | plain(self.inside)


@dataclass(frozen=True, kw_only=True)
class InspectResult(OfModel):
    """What was read, and what was assumed. `states` is the budget: Σ states · sets.

    `state_bytes` is what a sequence carries from step to step as float32, `multiply_adds` of one step; None where
    models are not run step by step.
    """

    command: ClassVar[str] = "inspect"

    container: str
    layers: tuple[LayerInfo, ...]
    states: int
    parameters: int
    bytes: int
    state_bytes: int | None = None
    multiply_adds: int | None = None
    config: Mapping[str, ConfigValue] = field(default_factory=dict)
    title: str = ""
    tensors: int | None = None
    dtypes: Mapping[str, int] = field(default_factory=dict)
    provenance: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    anatomy: Anatomy | None = field(default=None, metadata={UNDOCUMENTED: True})


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


@dataclass(frozen=True, kw_only=True)
class ConvertResult(Result):
    """One checkpoint in another container. `family_after` differs from `family` where the form was changed."""

    command: ClassVar[str] = "convert"

    checkpoint: str
    out: str
    container_before: str
    container_after: str
    tensors: int
    bytes_before: int
    bytes_after: int
    family: str | None = None
    family_after: str | None = None
    notes: tuple[str, ...] = ()


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
