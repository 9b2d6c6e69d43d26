"""Latency, throughput and memory of several models, measured in turns.

Machines drift: clocks change, other programs come and go. So the models run alternately, in a new random order every
round, and what is compared is the ratio inside a round. A round of a fast program is several calls, so that the clock
is not what is measured. Nothing else is read or copied in between: the batch is on the device before the first round.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from lastcli.engine.protocol import System
from lastcli.errors import UsageError
from lastcli.evaluation.data import Split
from lastcli.evaluation.fitting import fit_split
from lastcli.evaluation.passes import Runner, memory_errors, precision_of
from lastcli.evaluation.soundness import count_non_finite
from lastcli.evaluation.sweep import Advance
from lastcli.families.base import Forward

__all__ = ["Contender", "Timing", "device_name", "paired_speedup", "time_models"]

SHORTEST_ROUND = 0.01
WARM_UP = 2


@dataclass(frozen=True, eq=False)
class Contender:
    """A model to be measured: its architecture, tensors without states, and systems at their own size."""

    forward: Forward
    params: Mapping[str, np.ndarray]
    systems: Sequence[System]


@dataclass(frozen=True, eq=False)
class Timing:
    """What was measured of one model.

    Attributes:
        seconds: (repeats,) seconds a batch, one for each round; the same index is the same round for all models.
        compile_seconds: tracing and compiling, or fetching from the compile cache.
        peak_memory: bytes of arguments, results and workspace of the compiled program, None where unknown.
        batch_size: examples of a batch.
        non_finite: examples of it with outputs that are NaN or infinite.
        step: median seconds of one step of a batch as a recurrence, None where the model has none.
    """

    seconds: np.ndarray
    compile_seconds: float
    peak_memory: int | None
    batch_size: int
    non_finite: int = 0
    step: float | None = None

    @property
    def latency(self) -> float:
        """Median seconds a batch."""
        return float(np.median(self.seconds))

    @property
    def quantiles(self) -> tuple[float, float]:
        """5% and 95% quantile of the seconds a batch."""
        low, high = np.quantile(self.seconds, [0.05, 0.95])
        return float(low), float(high)

    @property
    def throughput(self) -> float:
        """Examples a second at the median."""
        return self.batch_size / self.latency


def time_models(
    contenders: Sequence[Contender],
    split: Split,
    *,
    batch_size: int | None = None,
    repeats: int = 30,
    seed: int = 0,
    progress: Advance | None = None,
) -> list[Timing]:
    """Run the models in turns over the first batch of a split, on one device.

    Args:
        contenders: the models; all must take the split.
        split: inputs, labels not needed.
        batch_size: examples of a batch; chosen from the first model's size where None.
        repeats: rounds.
        seed: of the order inside a round.
        progress: told `advance(1)` for each model and round; the total is repeats · len(contenders).

    Raises:
        InputError: the split does not fit a model.
        UsageError: no repeats, or a batch does not fit into memory.
    """
    if repeats < 1:
        raise UsageError(f"The number of repeats must be at least 1, not {repeats}.")
    runs: list[_Run] = []
    for contender in contenders:
        fitted = fit_split(split, contender.forward, labels=False)
        if batch_size is None:
            batch_size = Runner(contender.forward, {}).size(None, fitted, contender.systems)
        with memory_errors():
            runs.append(_Run(contender, fitted, min(batch_size, fitted.n)))
    generator = np.random.default_rng(seed)
    seconds = np.zeros((len(runs), repeats))
    for round_ in range(repeats):
        for index in generator.permutation(len(runs)):
            seconds[index, round_] = runs[index].measure()
            if progress is not None:
                progress.advance(1)
    steps = _step_seconds(contenders, [run.size for run in runs], repeats, generator)
    return [
        Timing(row, run.compile_seconds, run.peak_memory, run.size, run.non_finite, step)
        for row, run, step in zip(seconds, runs, steps)
    ]


def _step_seconds(
    contenders: Sequence[Contender], sizes: Sequence[int], repeats: int, generator: np.random.Generator
) -> list[float | None]:
    """Median seconds of one step of a batch, all models in turns; None of models that have no step."""
    if any(contender.forward.step is None for contender in contenders):
        return [None] * len(contenders)
    runs = [_StepRun(contender, size) for contender, size in zip(contenders, sizes)]
    seconds = np.zeros((len(runs), repeats))
    for round_ in range(repeats):
        for index in generator.permutation(len(runs)):
            seconds[index, round_] = runs[index].measure()
    return [float(np.median(row)) for row in seconds]


class _StepRun:
    """One step of a model, compiled, with its cache on the device."""

    def __init__(self, contender: Contender, size: int) -> None:
        forward = contender.forward
        runner = Runner(forward, contender.params)
        step, start = forward.step, forward.start
        if step is None or start is None:
            raise ValueError("this model is not run step by step")
        systems = runner.systems(contender.systems)
        x = np.zeros(size, np.int32) if forward.tokens else np.zeros((size, forward.features), np.float32)
        self.precision = functools.partial(precision_of, forward)
        with self.precision():
            self.arguments = (runner.params, systems, start(systems, size), runner.everywhere(x))
            self.program = jax.jit(step).lower(*self.arguments).compile()
        for _ in range(WARM_UP):
            once = self._seconds(1)
        self.calls = max(math.ceil(SHORTEST_ROUND / max(once, 1e-7)), 1)

    def measure(self) -> float:
        """Seconds a step in one round."""
        return self._seconds(self.calls)

    def _seconds(self, calls: int) -> float:
        params, systems, cache, x = self.arguments
        with self.precision():
            begin = time.perf_counter()
            for _ in range(calls):
                outputs, cache = self.program(params, systems, cache, x)
            jax.block_until_ready((outputs, cache))
            return (time.perf_counter() - begin) / calls


class _Run:
    """One compiled model with its arguments on the device."""

    def __init__(self, contender: Contender, split: Split, size: int) -> None:
        runner = Runner(contender.forward, contender.params)
        x, _, lengths = runner.batch(split.batch(0, size))
        self.size = size
        self.arguments = (runner.params, runner.systems(contender.systems), x, lengths)
        apply: Callable[..., Any] = contender.forward.apply
        start = time.perf_counter()
        # only the model's output is computed: the unused inputs of its layers are removed by the compiler
        self.precision = functools.partial(precision_of, contender.forward)
        with self.precision():
            self.program = jax.jit(lambda *arguments: apply(*arguments)[0]).lower(*self.arguments).compile()
        self.compile_seconds = time.perf_counter() - start
        self.peak_memory = _program_bytes(self.program)
        forward = contender.forward
        with self.precision():
            outputs = np.asarray(self.program(*self.arguments))
        self.non_finite = count_non_finite(outputs, forward.task, split.batch(0, size).lengths, forward.output_step)
        for _ in range(WARM_UP):
            once = self._seconds(1)
        self.calls = max(math.ceil(SHORTEST_ROUND / max(once, 1e-7)), 1)

    def measure(self) -> float:
        """Seconds a batch in one round."""
        return self._seconds(self.calls)

    def _seconds(self, calls: int) -> float:
        with self.precision():
            start = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(self.program(*self.arguments))
            return (time.perf_counter() - start) / calls


def _program_bytes(program: Any) -> int | None:
    found = program.memory_analysis()
    if found is None:
        return None
    total = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return int(total - found.alias_size_in_bytes) or None


def paired_speedup(
    original: Timing, pruned: Timing, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Median over the rounds of original/pruned, with its 95% bootstrap interval (None for a single round)."""
    ratios = original.seconds / pruned.seconds
    median = float(np.median(ratios))
    if len(ratios) < 2:
        return median, None, None
    drawn = np.random.default_rng(seed).integers(0, len(ratios), (resamples, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    return median, float(low), float(high)


def device_name() -> str:
    """The device that runs are measured on, for example "cpu" or "NVIDIA H200"."""
    device = jax.local_devices()[0]
    return str(device.device_kind or device.platform)
