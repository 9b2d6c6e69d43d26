"""Results of `bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lastcli.results.base import Result

__all__ = ["BenchResult", "BenchRun", "StepSpeedup", "StepTime"]


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
