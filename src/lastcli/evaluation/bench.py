"""Latency, throughput and memory of several models, and the time of a step, measured in turns.

Machines drift: clocks change, other programs come and go. So the models run alternately, in a new random order every
round, and what is compared is the ratio inside a round. A round of a fast program is several calls, so that the clock
is not what is measured. Nothing else is read or copied in between: the batch is on the device before the first round.
Steps run in a compiled loop, each with the states that the one before left, for the same reason.
"""

from __future__ import annotations

import functools
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
from lastcli.evaluation.memory import peak_of
from lastcli.evaluation.passes import Runner, computable, in_precision, memory_errors, precision_of
from lastcli.evaluation.soundness import count_non_finite
from lastcli.evaluation.steps import STEPPED, StepRun, calls_for, not_stepped
from lastcli.evaluation.sweep import Advance
from lastcli.families.base import Forward

__all__ = ["Contender", "Timing", "device_name", "paired_speedup", "time_models"]


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
        peak_memory: bytes, None where unknown; `memory_kind` says whose count.
        batch_size: examples of a batch.
        non_finite: examples of it with outputs that are NaN or infinite.
        steps: {sequences side by side: (repeats,) seconds of one step of all of them}; None where a model has no step.
    """

    seconds: np.ndarray
    compile_seconds: float
    peak_memory: int | None
    batch_size: int
    non_finite: int = 0
    steps: Mapping[int, np.ndarray] | None = None
    memory_kind: str | None = None

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
    with memory_errors():
        memory = _peaks(runs)
        for run in runs:
            run.begin()
    generator = np.random.default_rng(seed)
    seconds = np.stack(_in_turns(runs, repeats, generator, progress))
    steps = _step_seconds(contenders, split, sorted({*STEPPED, *(run.size for run in runs)}), repeats, generator)
    return [
        Timing(row, run.compile_seconds, peak, run.size, run.non_finite, of_steps, kind)
        for row, run, (peak, kind), of_steps in zip(seconds, runs, memory, steps)
    ]


def _in_turns(
    runs: Sequence[_Run | StepRun], repeats: int, generator: np.random.Generator, progress: Advance | None = None
) -> list[np.ndarray]:
    """Seconds of every round of each."""
    seconds = np.zeros((len(runs), repeats))
    for round_ in range(repeats):
        for index in generator.permutation(len(runs)):
            seconds[index, round_] = runs[index].measure()
            if progress is not None:
                progress.advance(1)
    return list(seconds)


def _peaks(runs: Sequence[_Run]) -> list[tuple[int | None, str | None]]:
    """(bytes, whose count) of each: all by the same, which is the compiler's where nobody else counts.

    A device counts one peak for the whole process, so the model that the compiler takes for smaller goes first.
    """
    order = sorted(range(len(runs)), key=lambda index: runs[index].program_bytes or 0)
    found = {index: peak_of(runs[index].once) for index in order}
    if all(found.values()):
        return [found[index] or (None, None) for index in range(len(runs))]
    kind = "the compiled program, as the compiler plans it"
    return [(run.program_bytes, None if run.program_bytes is None else kind) for run in runs]


def _step_seconds(
    contenders: Sequence[Contender], split: Split, sizes: Sequence[int], repeats: int, generator: np.random.Generator
) -> list[dict[int, np.ndarray] | None]:
    """Seconds of one step by the number of sequences, all models in turns; None of each where one has no step."""
    if any(not_stepped(contender.forward, contender.systems) for contender in contenders):
        return [None] * len(contenders)
    found: list[dict[int, np.ndarray] | None] = [{} for _ in contenders]
    for size in sizes:
        runs = [StepRun(one.forward, one.params, one.systems, split, size) for one in contenders]
        for own, row in zip(found, _in_turns(runs, repeats, generator)):
            if own is not None:
                own[size] = row
    return found


class _Run:
    """One compiled model; between `begin` and the end its arguments are on the device."""

    def __init__(self, contender: Contender, split: Split, size: int) -> None:
        self.contender, self.split, self.size = contender, split, size
        self.params = computable(contender.forward, contender.params)
        self.precision = functools.partial(precision_of, contender.forward)
        apply: Callable[..., Any] = contender.forward.apply
        arguments = self._placed()
        start = time.perf_counter()
        # only the model's output is computed: the unused inputs of its layers are removed by the compiler
        with self.precision():
            self.program = jax.jit(lambda *given: apply(*given)[0]).lower(*arguments).compile()
        self.compile_seconds = time.perf_counter() - start
        self.program_bytes = _program_bytes(self.program)

    def _placed(self, **how: Any) -> tuple[Any, ...]:
        """Parameters, layers and one batch on the device."""
        runner = Runner(self.contender.forward, {})
        batch = self.split.batch(0, self.size)
        with self.precision():
            model = (self.params, in_precision(self.contender.forward, self.contender.systems))
            params, systems = jax.device_put(model, runner.replicated, **how)
            x, lengths = jax.device_put((batch.x, batch.lengths), runner.spread, **how)
        return params, systems, x, lengths

    def once(self) -> None:
        """The batch, from placing it and the model to letting go of all."""
        with self.precision():
            # copied even where the device is the host: what the model takes by itself is wanted
            jax.block_until_ready(self.program(*self._placed(may_alias=False)))

    def begin(self) -> None:
        """Place the arguments and look at the outputs."""
        self.arguments, forward = self._placed(), self.contender.forward
        with self.precision():
            outputs = np.asarray(self.program(*self.arguments))
        lengths = self.split.batch(0, self.size).lengths
        self.non_finite = count_non_finite(outputs, forward.task, lengths, forward.output_step)
        self.calls = calls_for(self._seconds)

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
    original: np.ndarray, pruned: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Median over the rounds of original/pruned, with its 95% bootstrap interval (None for a single round).

    Args:
        original, pruned: (repeats,) seconds; the same index is the same round.
    """
    ratios = original / pruned
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
