"""Is one model worse than another on the same examples? Paired tests and intervals.

Accuracy: exact McNemar test (McNemar 1947, with the binomial distribution) and Tango's score interval of the paired
difference (Tango 1998, Statistics in Medicine 17:891). Errors: paired bootstrap, the same examples drawn for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from lastcli.evaluation.metrics import Metric

__all__ = ["Comparison", "compare", "mcnemar_exact", "paired_difference_interval"]


@dataclass(frozen=True)
class Comparison:
    """A model against a baseline on the same examples.

    Attributes:
        drop: what is lost, as `Metric.drop`.
        low, high: two-sided interval of the drop; `upper` one-sided upper limit at the same confidence, which is what
            a bound on the drop is compared with. None where there is a single unit.
        p_value: two-sided, of no difference.
        wins, losses: units that only the model, or only the baseline, gets right; of other metrics those to which it
            is nearer (`Metric.losses`).
    """

    drop: float
    low: float | None
    high: float | None
    upper: float | None
    p_value: float
    wins: int
    losses: int


def compare(
    metric: Metric, baseline: np.ndarray, model: np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> Comparison:
    """Compare (units, S) statistics of two models over the same units, in the same order."""
    base, value = metric.value(baseline), metric.value(model)
    drop = float(metric.drop(base, value))
    if metric.by_example:
        right, now = baseline[:, 0] > 0.5, model[:, 0] > 0.5
        losses, wins, n = int((right & ~now).sum()), int((now & ~right).sum()), len(right)
        low, high = paired_difference_interval(losses, wins, n, confidence)
        upper = paired_difference_interval(losses, wins, n, 2 * confidence - 1)[1]
        return Comparison(drop, low, high, upper, mcnemar_exact(losses, wins), wins, losses)
    before, now = metric.losses(baseline), metric.losses(model)
    wins, losses = int((now < before).sum()), int((now > before).sum())
    if len(baseline) < 2:
        return Comparison(drop, None, None, None, 1.0, wins, losses)
    draws = metric.drop(metric.resampled(baseline, seed=seed), metric.resampled(model, seed=seed))
    draws = np.nan_to_num(np.asarray(draws), nan=math.inf, posinf=math.inf, neginf=-math.inf)
    tail = (1 - confidence) / 2
    low, high, upper = (float(np.quantile(draws, q, method="higher")) for q in (tail, 1 - tail, confidence))
    extreme = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return Comparison(drop, low, high, upper, min(1.0, 2 * (extreme + 1) / (len(draws) + 1)), wins, losses)


def mcnemar_exact(losses: int, wins: int) -> float:
    """Two-sided exact McNemar p-value: min(1, 2·P[X ≤ min(losses, wins)]), X ~ Binomial(losses + wins, 1/2)."""
    total, few = losses + wins, min(losses, wins)
    term = cumulative = 1
    for k in range(few):
        term = term * (total - k) // (k + 1)
        cumulative += term
    return min(1.0, 2 * cumulative / (1 << total))


def paired_difference_interval(losses: int, wins: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval of (losses - wins)/n; holds its level also where hardly any pair differs."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    center = (losses - wins) / n
    return _root(losses, wins, n, -z, -1.0, center), _root(losses, wins, n, z, center, 1.0)


def _root(losses: int, wins: int, n: int, z: float, low: float, high: float) -> float:
    """The δ at which Tango's statistic is -z; it falls as δ grows."""
    for _ in range(60):
        middle = (low + high) / 2
        if _score(losses, wins, n, middle) > -z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _score(losses: int, wins: int, n: int, delta: float) -> float:
    """(b - c - nδ)/√(n(2q + δ(1 - δ))), q the constrained maximum-likelihood estimate of P[only the model is right]."""
    linear = -losses - wins + (2 * n - losses + wins) * delta
    constant = -wins * delta * (1 - delta)
    q = (math.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * q + delta * (1 - delta))
    difference = losses - wins - n * delta
    if variance <= 0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / math.sqrt(variance)
