"""Metrics that rank the scores of all examples together, which no sum over examples gives: AUROC, average precision.

They are those of scikit-learn (`roc_auc_score`, `average_precision_score`), ties, weights and averages included. A
bootstrap resample is the examples weighted by how often each was drawn, so that one sort of the scores serves them all.
"""

from __future__ import annotations

import numpy as np

__all__ = ["RANKED", "pooled_value", "ranked_value", "resampled_values"]

RANKED = ("auroc", "average_precision")
# Work of one bootstrap: scores times resamples; many scores get fewer resamples, never fewer than so many.
_WORK = 1 << 28
_FEWEST = 200
_CHUNK = 1 << 21


def ranked_value(name: str, statistics: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The metric of (n, 2) statistics, the logit of the positive class and the label 0 or 1.

    Args:
        name: one of `RANKED`.
        weights: (..., n), not negative; all 1 where None.

    Returns:
        (...,); NaN where no weight is on class 1 (auroc: on either class).
    """
    logits, labels = statistics[:, 0], statistics[:, 1]
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
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


def pooled_value(name: str, statistics: np.ndarray, labels: int, weights: np.ndarray | None = None) -> np.ndarray:
    """The metric of examples with several scores each: of several labels, or of every step.

    Args:
        name: "auroc", "average_precision"; with "_macro" the mean over the labels of their own values, labels of which
            one class has no weight left out; with "_micro", or nothing, over all scores as if of one label.
        statistics: (n, 2·m·k), in the order (m, k, 2): logit and label (NaN: not scored) of m steps and k labels.
        labels: k.
        weights: (..., n) of the examples; all 1 where None.

    Returns:
        (...,); NaN where no value is defined.
    """
    n = len(statistics)
    scores = statistics.reshape(n, -1, labels, 2)
    weights = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    kind = name.removesuffix("_macro").removesuffix("_micro")
    if not name.endswith("_macro"):
        return _of_scores(kind, scores.reshape(n, -1, 2), weights)
    each = np.stack([_of_scores(kind, scores[:, :, label], weights) for label in range(labels)])
    known = ~np.isnan(each)
    return np.where(known.any(0), np.where(known, each, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def _of_scores(kind: str, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, m, 2) scores of examples with (..., n) weights."""
    example, step = np.nonzero(~np.isnan(scores[..., 1]))
    if not example.size:
        return np.full(weights.shape[:-1], np.nan)
    return ranked_value(kind, scores[example, step], weights[..., example])


def resampled_values(
    name: str, statistics: np.ndarray, *, resamples: int, seed: int = 0, labels: int = 1
) -> np.ndarray:
    """(R,) values over examples drawn with replacement; one seed draws the same examples always.

    R is `resamples`, or fewer (200 at least) where there are many scores.
    """
    n, generator, found = len(statistics), np.random.default_rng(seed), []
    resamples = min(resamples, max(_WORK // max(statistics.size // 2, 1), _FEWEST))
    rows = max(min(resamples, _CHUNK // max(statistics.size // 2, 1)), 1)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = generator.integers(0, n, (count, n)) + np.arange(count)[:, None] * n
        times = np.bincount(drawn.reshape(-1), minlength=count * n).reshape(count, n)
        found.append(pooled_value(name, statistics, labels, times))
    return np.concatenate(found)
