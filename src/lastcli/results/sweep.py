"""Results of `sweep`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lastcli.results.anatomy import Anatomy
from lastcli.results.base import UNDOCUMENTED, OfModel, UnstableStates
from lastcli.results.certificates import LayerCertificate
from lastcli.results.gates import Gate

__all__ = ["PublishedNumbers", "PublishedRow", "SweepResult", "SweepRow"]


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One ratio of one method and refit.

    Attributes:
        states: stored states kept in the whole model; `layers`: of one index set in each layer.
        value, drop: metric, and baseline - value for accuracies, the relative rise for errors.
        ci_low, ci_high: 95% interval of `value`.
        p_value: two-sided exact McNemar (accuracy) or paired bootstrap (errors) against the baseline.
        max_difference, mean_difference: of the outputs against the unpruned model on the split.
        certificates: of each layer, empty where not asked for.
        published: what a paper gives for the method without a refit at this ratio; None where it gives nothing.
    """

    method: str
    refit: str
    ratio: float
    states: int
    value: float
    drop: float
    ci_low: float | None
    ci_high: float | None
    layers: tuple[int, ...]
    parameters: int | None = None
    p_value: float | None = None
    max_difference: float | None = None
    mean_difference: float | None = None
    certificates: tuple[LayerCertificate, ...] = ()
    published: float | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """What a paper gives for a method, without a refit, at a ratio."""

    method: str
    ratio: float
    value: float


@dataclass(frozen=True, kw_only=True)
class PublishedNumbers:
    """The numbers of a paper that the recipe carries, of the metric that was measured.

    Attributes:
        source: where they are printed.
        full: of the model before pruning; None where it is not given.
    """

    source: str
    metric: str
    full: float | None = None
    rows: tuple[PublishedRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SweepResult(OfModel):
    """The metric against the ratio; `chosen` is the row of the largest ratio within `max_drop`, or None.

    `passed` is the answer of the gates `--fail-over` and `--fail-under`, None where there was none; `gates` are all
    that were asked for, `--max-drop` among them. `baseline_fault` is a sentence where the full model does not beat an
    answer that looks at no input, else None: then no gate passes and nothing is chosen.
    `published` are the numbers of a paper, None where the recipe has none of this metric.
    `state_parameters` of `parameters`, and `state_multiply_adds` of the `multiply_adds` of a step, go when states go:
    more than those no pruning can win. None where they are not known.
    A row whose outputs are not finite has no value and an infinite drop, both null in JSON.
    """

    command: ClassVar[str] = "sweep"

    metric: str
    baseline: float
    n: int
    rows: tuple[SweepRow, ...]
    chosen: SweepRow | None = None
    higher_is_better: bool = True
    baseline_ci: tuple[float | None, float | None] = (None, None)
    states: int | None = None
    parameters: int | None = None
    layer_names: tuple[str, ...] = ()
    layer_states: tuple[int, ...] = ()
    data: str | None = None
    max_drop: float | None = None
    fail_over: float | None = None
    fail_under: float | None = None
    gates: tuple[Gate, ...] = ()
    passed: bool | None = None
    baseline_fault: str | None = None
    threshold: float | None = None
    compat: str | None = None
    published: PublishedNumbers | None = None
    state_parameters: int | None = None
    multiply_adds: int | None = None
    state_multiply_adds: int | None = None
    seconds: float | None = None
    unstable: tuple[UnstableStates, ...] = ()
    notes: tuple[str, ...] = ()
    anatomy: Anatomy | None = field(default=None, metadata={UNDOCUMENTED: True})
