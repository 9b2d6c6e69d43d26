"""Metrics of a binary classifier that no sum over examples gives: AUROC, average precision, F1; with weights.

They are those of scikit-learn (`roc_auc_score`, `average_precision_score`, `f1_score`), ties and weights included. A
bootstrap resample is the examples weighted by how often each was drawn, so that one sort of the scores serves them all.
"""

from __future__ import annotations

import numpy as np

__all__ = ["RANKED", "ranked_value", "resampled_values"]

RANKED = ("auroc", "average_precision", "f1")


def ranked_value(name: str, statistics: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The metric of (n, 2) statistics, the logit of the positive class and the label 0 or 1.

    Args:
        name: one of `RANKED`; f1 answers "positive" where the logit is above 0.
        weights: (..., n), not negative; all 1 where None.

    Returns:
        (...,); NaN where only one class has weight (f1: 0 where nothing is positive and nothing was called so).
    """
    logits, labels = statistics[:, 0], statistics[:, 1]
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    if name == "f1":
        called = logits > 0
        right = (weights * (called * labels)).sum(-1)
        both = (weights * (called + labels)).sum(-1)
        return 2 * right / np.where(both > 0, both, 1)
    order = np.argsort(-logits, kind="stable")
    ends = np.flatnonzero(np.diff(logits[order], append=np.nan) != 0)  # the last of equal scores
    weights, positive = weights[..., order], labels[order]
    hits = np.cumsum(weights * positive, axis=-1)[..., ends]
    misses = np.cumsum(weights * (1 - positive), axis=-1)[..., ends]
    start = np.zeros((*hits.shape[:-1], 1))
    gained = np.diff(hits, axis=-1, prepend=start)
    with np.errstate(divide="ignore", invalid="ignore"):
        if name == "average_precision":
            called = hits + misses
            precision = hits / np.where(called > 0, called, 1)
            return (gained * precision).sum(-1) / hits[..., -1]
        spread = np.diff(misses, axis=-1, prepend=start)
        return (spread * (hits - gained / 2)).sum(-1) / (hits[..., -1] * misses[..., -1])


def resampled_values(name: str, statistics: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """(resamples,) values over examples drawn with replacement; one seed draws the same examples always."""
    n, generator, found = len(statistics), np.random.default_rng(seed), []
    rows = max(min(resamples, (1 << 21) // n), 1)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = generator.integers(0, n, (count, n)) + np.arange(count)[:, None] * n
        times = np.bincount(drawn.reshape(-1), minlength=count * n).reshape(count, n)
        found.append(ranked_value(name, statistics, times))
    return np.concatenate(found)
