"""Many candidates of one model over one split, with one compiled program and one reading of the data.

A candidate is the model's layers as other systems of the same shapes: masked, refitted or reduced and embedded at full
size. The program takes them as arguments, so nothing is compiled again; every batch is put on the devices once and
all candidates run over it. A candidate's numbers do not depend on which others are present.
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
from lastcli.evaluation.passes import Runner, memory_errors, precision_of
from lastcli.families.base import Forward

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
    sums = [_Accumulated(compare_outputs) for _ in candidates]
    with memory_errors():
        placed = [runner.systems(candidate) for candidate in candidates]
        for batch in split.batches(runner.size(batch_size, split, candidates[0])):
            inputs = runner.batch(batch)
            first = None
            for systems, result in zip(placed, sums, strict=True):
                with precision_of(forward):
                    statistics, finite, outputs = program(runner.params, systems, *inputs, center)
                count = batch.count  # padded examples come last
                result.add(np.asarray(statistics)[:count], np.asarray(finite)[:count])
                if compare_outputs:
                    now = np.asarray(outputs)[:count]
                    first = now if first is None else first
                    result.add_difference(now, first)
                if progress is not None:
                    progress.advance(count)
    return [result.evaluation(metric, split.n) for result in sums]


@lru_cache(maxsize=16)
def _program(apply: Apply, metric: Metric, replicated: NamedSharding) -> Callable[..., Any]:
    """The compiled evaluation of a batch: (statistics, finite, outputs), gathered from all devices."""

    def evaluate(params: Any, systems: Any, x: Any, y: Any, lengths: Any, center: Any) -> tuple[Any, Any, Any]:
        outputs, _ = apply(params, systems, x, lengths)
        statistics = metric.statistics(outputs, y, lengths, center, xp=jnp)
        return statistics, metric.finite(outputs, lengths, xp=jnp), outputs

    return jax.jit(evaluate, out_shardings=replicated)


class _Accumulated:
    """Per-example statistics of one candidate as batches come in."""

    def __init__(self, compare_outputs: bool) -> None:
        self.parts: list[np.ndarray] = []
        self.largest = 0.0 if compare_outputs else None
        self.total = 0.0
        self.terms = 0
        self.non_finite = 0

    def add(self, statistics: np.ndarray, finite: np.ndarray) -> None:
        self.parts.append(statistics)
        self.non_finite += int((~finite).sum())

    def add_difference(self, outputs: np.ndarray, reference: np.ndarray) -> None:
        # equal infinities (log-probabilities of -inf) do not differ; inf - inf would be NaN
        same = outputs == reference
        difference = np.abs(np.where(same, 0, outputs) - np.where(same, 0, reference), dtype=np.float64)
        self.largest = float(np.maximum(self.largest or 0.0, difference.max(initial=0.0)))  # NaN stays NaN
        self.total += float(difference.sum())
        self.terms += difference.size

    def evaluation(self, metric: Metric, n: int) -> Evaluation:
        found = Evaluation.of(metric, self.parts, n, self.non_finite)
        if self.largest is None:
            return found
        mean = self.total / max(self.terms, 1)
        return dataclasses.replace(found, max_difference=self.largest, mean_difference=mean)
