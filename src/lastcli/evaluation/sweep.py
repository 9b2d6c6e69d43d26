"""Many candidates of one model over one split, with one compiled program and one reading of the data.

A candidate is the model's layers as other systems of the same shapes: masked, refitted or reduced and embedded at full
size. The program takes them as arguments, so nothing is compiled again; every batch is put on the devices once and
all candidates run over it, on a CPU as many at a time as there are cores. A candidate's numbers do not depend on which
others are present; one that is candidate 0 value for value, as nothing removed is, is not run again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from lastcli.engine.protocol import System
from lastcli.errors import UsageError
from lastcli.evaluation.choice import choose_metric
from lastcli.evaluation.data import Split
from lastcli.evaluation.fitting import fit_split
from lastcli.evaluation.metrics import Metric
from lastcli.evaluation.passes import Runner, memory_errors, own_batches, precision_of
from lastcli.evaluation.programs import Program
from lastcli.families.base import Forward
from lastcli.parallel import processes
from lastcli.parallel.threads import side_by_side

__all__ = ["Advance", "Evaluation", "evaluate_candidates"]

Apply = Callable[..., Any]


class Advance(Protocol):
    """What a progress bar must offer."""

    def advance(self, n: int) -> None:
        """`n` more of the total are done."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One candidate on the split.

    Attributes:
        metric: what was measured.
        value: the metric over all examples, NaN where outputs of one of them are not finite.
        ci_low, ci_high: its 95% interval, None where one unit was seen or the value is NaN.
        n: number of examples.
        statistics: (units, S) float64 per-example statistics in the order of the split, for `significance.compare`.
        non_finite: examples with outputs that are NaN or infinite (`Metric.finite`).
        max_difference, mean_difference: of the outputs against candidate 0, None unless asked for.
    """

    metric: Metric
    value: float
    ci_low: float | None
    ci_high: float | None
    n: int
    statistics: np.ndarray
    max_difference: float | None = None
    mean_difference: float | None = None
    non_finite: int = 0

    @classmethod
    def of(cls, metric: Metric, parts: Sequence[np.ndarray], n: int, non_finite: int = 0) -> Evaluation:
        """From the statistics of all batches, as `Metric.statistics` gives them."""
        statistics = np.concatenate([part.reshape(-1, part.shape[-1]).astype(np.float64) for part in parts])
        if non_finite:
            return cls(metric, math.nan, None, None, n, statistics, non_finite=non_finite)
        low, high = metric.interval(statistics)
        return cls(metric, metric.value(statistics), low, high, n, statistics)

    @property
    def finite(self) -> bool:
        """Whether all outputs are finite numbers, and the value is one."""
        return not self.non_finite and math.isfinite(self.value)


def evaluate_candidates(
    forward: Forward,
    params: Mapping[str, np.ndarray],
    candidates: Sequence[Sequence[System]],
    split: Split,
    metric: Metric | str | None = None,
    *,
    batch_size: int | None = None,
    progress: Advance | None = None,
    compare_outputs: bool = False,
) -> list[Evaluation]:
    """Evaluate candidates of one model on a split.

    Args:
        forward: the model's architecture.
        params: {tensor name: array} of the tensors that carry no state.
        candidates: one tuple of systems each, a system a layer. Equal shapes share one compiled program.
        split: the data; checked against the model here.
        metric: a `Metric`, its name, or None for the task's own.
        batch_size: examples at a time; chosen from the model's size where None.
        progress: told `advance(n)` for each n examples of a candidate; the total is n · len(candidates).
        compare_outputs: also measure how far the outputs are from those of candidate 0.

    Raises:
        InputError: the split does not fit the model.
        UsageError: the metric does not fit, there is no candidate, or a batch does not fit into memory.
    """
    if not candidates:
        raise UsageError("There is nothing to evaluate: no ratio was given.")
    split = fit_split(split, forward)
    if not isinstance(metric, Metric):
        metric = choose_metric(metric, forward, split)
    runner = Runner(forward, params)
    center = runner.everywhere(metric.target_mean(split))
    program = _program(forward.apply, metric, runner.replicated)
    size = runner.size(batch_size, split, candidates[0])
    batches = split.batches(size)
    # a size that was asked for is there to bound the memory: one batch at a time
    at_once = 1 if batch_size is not None else runner.at_once(size, split, candidates[0])

    def run(item: tuple[int, int, int, Any, Any]) -> tuple[int, int, int, Any, Any, Any]:
        """One candidate over one batch; waits for its numbers."""
        number, k, count, systems, inputs = item
        with precision_of(forward):
            statistics, finite, outputs = program(runner.params, systems, *inputs, center)
        compared = np.asarray(outputs)[:count] if compare_outputs else None
        return number, k, count, np.asarray(statistics), np.asarray(finite), compared

    def own() -> list[dict[int, _Part]]:
        """Of every candidate, what this process has measured: {number of the batch: its part}."""
        first_again = [k for k in range(1, len(candidates)) if _same(candidates[k], candidates[0])]
        parts: list[dict[int, _Part]] = [{} for _ in candidates]
        with memory_errors():
            placed = {k: runner.systems(one) for k, one in enumerate(candidates) if k not in first_again}
            items = (
                (number, k, batch.count, systems, inputs)
                for number, batch in own_batches(batches)
                for inputs in [runner.batch(batch)]
                for k, systems in placed.items()
            )
            first = None
            for number, k, count, statistics, finite, outputs in side_by_side(run, items, at_once):
                first = outputs if k == 0 else first
                parts[k][number] = _Part.of(statistics, finite, count, outputs, first)
                equal = len(first_again) if k == 0 else 0
                if progress is not None:
                    progress.advance(count * processes.count() * (1 + equal))
        for k in first_again:
            parts[k] = parts[0]
        return parts

    everything = processes.together(own)
    return [_joined(metric, [parts[k] for parts in everything], split.n) for k in range(len(candidates))]


def _same(one: Any, other: Any) -> bool:
    """Whether the systems of two candidates are the same value for value, bit for bit."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | jax.Array):
        one, other = np.asarray(one), np.asarray(other)
        return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    # by fields, not as pytrees, which systems are only once a program has been made for them
    if dataclasses.is_dataclass(one):
        return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return bool(one == other)


@lru_cache(maxsize=16)
def _program(apply: Apply, metric: Metric, replicated: NamedSharding) -> Program:
    """The compiled evaluation of a batch: (statistics, finite, outputs), gathered from all devices."""

    def evaluate(params: Any, systems: Any, x: Any, y: Any, lengths: Any, center: Any) -> tuple[Any, Any, Any]:
        outputs, _ = apply(params, systems, x, lengths)
        statistics = metric.statistics(outputs, y, lengths, center, xp=jnp)
        return statistics, metric.finite(outputs, lengths, xp=jnp), outputs

    return Program(evaluate, replicated)


@dataclass(frozen=True, eq=False)
class _Part:
    """One candidate on one batch.

    Attributes:
        statistics: of each example, in the order of the split.
        non_finite: examples with outputs that are NaN or infinite.
        largest, total, terms: of the differences of the outputs from those of candidate 0, and how many there are;
            `largest` is None where they are not compared.
    """

    statistics: np.ndarray
    non_finite: int
    largest: float | None = None
    total: float = 0.0
    terms: int = 0

    @classmethod
    def of(
        cls,
        statistics: np.ndarray,
        finite: np.ndarray,
        count: int,
        outputs: np.ndarray | None,
        reference: np.ndarray | None,
    ) -> _Part:
        """From what the program gives for a batch, whose padded examples come last."""
        bare = cls(statistics[:count], int((~finite[:count]).sum()))
        if outputs is None or reference is None:
            return bare
        # equal infinities (log-probabilities of -inf) do not differ; inf - inf would be NaN
        same = outputs == reference
        difference = np.abs(np.where(same, 0, outputs) - np.where(same, 0, reference), dtype=np.float64)
        largest, total = float(difference.max(initial=0.0)), float(difference.sum())
        return dataclasses.replace(bare, largest=largest, total=total, terms=difference.size)


def _joined(metric: Metric, shares: Sequence[Mapping[int, _Part]], n: int) -> Evaluation:
    """The parts that several processes measured, summed in the order of the batches: the sums do not depend on who."""
    found = {number: part for share in shares for number, part in share.items()}
    parts = [found[number] for number in sorted(found)]
    evaluation = Evaluation.of(metric, [part.statistics for part in parts], n, sum(part.non_finite for part in parts))
    if any(part.largest is None for part in parts):
        return evaluation
    largest = float(np.max([part.largest for part in parts], initial=0.0))  # NaN stays NaN
    mean = sum(part.total for part in parts) / max(sum(part.terms for part in parts), 1)
    return dataclasses.replace(evaluation, max_difference=largest, mean_difference=mean)
