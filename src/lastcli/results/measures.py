"""Results of the verbs that measure a model: sweep, eval, verify, bench."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lastcli.results.anatomy import Anatomy
from lastcli.results.base import UNDOCUMENTED, OfModel, Result, UnstableStates
from lastcli.results.gates import Gate

__all__ = [
    "BenchResult",
    "BenchRun",
    "Check",
    "EvalResult",
    "LayerCertificate",
    "PublishedNumbers",
    "PublishedRow",
    "StepSpeedup",
    "StepTime",
    "SweepResult",
    "SweepRow",
    "VerifyResult",
]


@dataclass(frozen=True, kw_only=True)
class LayerCertificate:
    """Certificates of one layer as it is stored; None where not computed.

    Attributes:
        hinf_error_bound: bound on the H∞ error that is known before the error is.
        hinf_error: H∞ norm of the error; infinite (null in JSON) where it is not bounded. `hinf_exact`: whether that is
            proved to be the norm; otherwise it is a lower bound.
        h2_error: H2 error relative to the layer without its D.
        dc_error: error of the response to constant inputs, relative.
        data_error: error of the output on the calibration inputs, relative as h2_error; of the layer by itself, as if
            all others were the original's.
    """

    name: str
    states_before: int
    states_after: int
    hinf_error_bound: float | None = None
    hinf_error: float | None = None
    h2_error: float | None = None
    hinf_exact: bool | None = None
    dc_error: float | None = None
    data_error: float | None = None


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


@dataclass(frozen=True, kw_only=True)
class EvalResult(OfModel):
    """A metric on a split. `passed` is the answer of the gate `--fail-under`, None where there was none."""

    command: ClassVar[str] = "eval"

    metric: str
    value: float
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    higher_is_better: bool = True
    data: str | None = None
    warmup: int = 0
    threshold: float | None = None
    fail_under: float | None = None
    passed: bool | None = None
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of a verification.

    Attributes:
        how: how it is known: "proved" (from the bytes of both files), "recomputed" (from ORIGINAL, and calibration
            inputs given again), or "trusted" (the file's own record and its sha256); empty where it is not.
    """

    name: str
    ok: bool
    detail: str = ""
    how: str = ""


@dataclass(frozen=True, kw_only=True)
class VerifyResult(Result):
    """Whether PRUNED is ORIGINAL with states removed.

    Attributes:
        max_abs_difference: of the outputs of PRUNED and of ORIGINAL with the same states masked: rounding, if all is
            well.
        max_output_difference, mean_output_difference: of the outputs of PRUNED and of ORIGINAL as it is: what the
            reduction did.
    """

    command: ClassVar[str] = "verify"

    original: str
    pruned: str
    ok: bool
    max_abs_difference: float | None
    checks: tuple[Check, ...]
    layers: tuple[LayerCertificate, ...] = ()
    max_output_difference: float | None = None
    mean_output_difference: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step of `batch_size` sequences side by side: median, 5% and 95% quantile."""

    batch_size: int
    latency: float
    latency_low: float
    latency_high: float


@dataclass(frozen=True, kw_only=True)
class StepSpeedup:
    """Median of the paired ratios original/pruned of a step of `batch_size` sequences, with 95% interval."""

    batch_size: int
    speedup: float
    speedup_low: float | None = None
    speedup_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class BenchRun:
    """Times and memory of one model.

    Attributes:
        latency: median seconds a batch; `latency_low` and `latency_high` its 5% and 95% quantiles.
        throughput: examples a second at the median.
        peak_memory: bytes that placing the model and a batch and running it take; `memory_kind` says by whose count.
        state_bytes: what a sequence carries from step to step; None where the model reads it from both ends.
        multiply_adds, state_multiply_adds: of a step of one sequence, and those of them that go when states go; None
            where they are not known.
        step_latency: median seconds of a step of a batch; steps: of one sequence, of 32, and of a batch. None where the
            model is not run step by step; `notes` then say why.
        compile_seconds: first call; short where the compile cache knew the program.
    """

    checkpoint: str
    states: int
    parameters: int
    bytes: int
    latency: float
    latency_low: float
    latency_high: float
    throughput: float
    peak_memory: int | None = None
    memory_kind: str | None = None
    compile_seconds: float | None = None
    state_bytes: int | None = None
    multiply_adds: int | None = None
    step_latency: float | None = None
    state_multiply_adds: int | None = None
    steps: tuple[StepTime, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class BenchResult(Result):
    """Two models measured in turns; `speedup` is the median of the paired ratios original/pruned, with 95% interval.

    `step_speedups` are the same of single steps, None where the models are not run step by step.
    """

    command: ClassVar[str] = "bench"

    original: BenchRun
    pruned: BenchRun
    speedup: float
    speedup_low: float | None = None
    speedup_high: float | None = None
    batch_size: int
    length: int
    repeats: int
    device: str
    dtype: str = "float32"
    step_speedups: tuple[StepSpeedup, ...] | None = None
    notes: tuple[str, ...] = ()
