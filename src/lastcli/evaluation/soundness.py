"""Is there anything to compare with? Outputs that are finite, and a model that knows more than its labels' frequencies.

A model whose outputs are NaN, or one that was put together wrongly and answers at chance, loses nothing when states
go: every gate would pass. The rule for chance is the point estimate alone: a classifier must be right more often than
the most frequent class of the split is, a regression model must be better than the mean of the split's targets.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lastcli.errors import InputError
from lastcli.evaluation.data import Split
from lastcli.evaluation.metrics import IGNORED, Metric
from lastcli.evaluation.ranking import pooled_value
from lastcli.evaluation.sweep import Evaluation

__all__ = ["beats_trivial", "count_non_finite", "first_non_finite", "require_finite", "trivial_value", "what_is_wrong"]


def require_finite(found: Evaluation, model: str, data: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Refuse an evaluation of the full model that is no number.

    Args:
        found: the model as it is.
        model, data: how messages name the file and the split.
        tensors: those outside the layers, where the reason is looked for.

    Raises:
        InputError: outputs, or the metric, are NaN or infinite.
    """
    if found.non_finite:
        raise InputError(what_is_wrong(model, found.non_finite, found.n, data, tensors))
    if not found.finite:
        raise InputError(
            f"{model}: {found.metric.name} on {data} is not a finite number, though every output is: the targets do "
            "not vary, or the errors are too large for float32."
        )


def what_is_wrong(model: str, bad: int, n: int, data: str, tensors: Mapping[str, np.ndarray]) -> str:
    """The sentence about `bad` of `n` examples whose outputs are not finite: where, and what is probably the reason."""
    text = f"{model}: the outputs are NaN or infinite for {bad} of {n} {'example' if n == 1 else 'examples'} of {data}"
    tensor = first_non_finite(tensors)
    if tensor is not None:
        return f"{text}, since {tensor}, which is outside the layers; the training run diverged or the file is damaged."
    return (
        f"{text}, though every tensor that the forward pass reads is finite; check how the model is described "
        "(last inspect) and how its inputs are scaled."
    )


def first_non_finite(tensors: Mapping[str, np.ndarray]) -> str | None:
    """The first tensor with NaN or infinity and its place, as a clause; None where all are finite."""
    for name, array in tensors.items():
        values = np.asarray(array)
        if values.dtype.kind in "iub":
            continue
        finite = np.isfinite(values if values.dtype.kind in "fc" else values.astype(np.float32))
        if not finite.all():
            where = [int(i) for i in np.argwhere(~finite)[0]]
            return f"tensor {name} holds NaN or infinity (first at {where})"
    return None


def count_non_finite(outputs: np.ndarray, task: str, lengths: np.ndarray | None = None, step: int = 1) -> int:
    """Examples of a batch of outputs that are not finite; `task`, `step` as the `Forward` says."""
    labels = outputs.shape[-1] if task == "multilabel" else 0
    name = "mse" if task == "regression" else "accuracy"
    metric = Metric(name, sequence=outputs.ndim > 2, step=step, labels=labels)
    return int((~metric.finite(outputs, lengths)).sum())


def beats_trivial(found: Evaluation, split: Split) -> bool | None:
    """Whether the model is better than `trivial_value`; None where that says nothing."""
    trivial = trivial_value(found.metric, split)
    if trivial is None:
        return None
    return bool(found.value > trivial if found.metric.higher_is_better else found.value < trivial)


def trivial_value(metric: Metric, split: Split) -> float | None:
    """The metric of the best answer that looks at no input: the most frequent class, or the mean of the targets.

    The mean is that of each output over all steps that count. None without labels, and where targets do not vary.
    """
    if split.y is None:
        return None
    if metric.classifies:
        return _blind_labels(metric, split) if metric.labels else _blind_class(metric, split)
    y = split.y.astype(np.float64)
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim == 3:
        y = y[np.broadcast_to(metric.counted(y.shape[1], split.lengths), y.shape[:2])]
    error = y - y.mean(0)
    squared = float((error**2).mean())
    if squared == 0:
        return None
    return {"mse": squared, "rmse": squared**0.5, "mae": float(np.abs(error).mean()), "fit": 0.0}[metric.name]


def _counting(metric: Metric, split: Split) -> np.ndarray:
    """The labels that count: (N,), or (N, k) of independent ones, -100 where one of these is not scored."""
    y = np.asarray(split.y)
    if metric.sequence:
        y = y[np.broadcast_to(metric.counted(y.shape[1], split.lengths), y.shape[:2])]
    return y.reshape(-1, metric.labels) if metric.labels else y[y != IGNORED]


def _blind_class(metric: Metric, split: Split) -> float | None:
    """Always the most frequent class (of two, for class 1's F1: class 1), or the classes' frequencies as scores."""
    y = _counting(metric, split)
    share = np.unique(y, return_counts=True)[1] / len(y)
    if share.size < 2:
        return None
    if metric.ranked:
        return 0.5 if metric.name == "auroc" else float((y > 0).mean())
    most = float(share.max())
    if metric.name in ("nll", "perplexity"):
        entropy = float(-(share * np.log(share)).sum())
        return entropy if metric.name == "nll" else float(np.exp(entropy))
    if metric.name == "f1":
        most = float((y > 0).mean())
        return 2 * most / (1 + most)
    return 2 * most / (1 + most) / share.size if metric.name == "f1_macro" else most


def _blind_labels(metric: Metric, split: Split) -> float | None:
    """The same answer, or the same scores, for every example; of the decisions the best for the metric."""
    y = _counting(metric, split)
    scored = y != IGNORED
    scored_often, true = scored.sum(0), ((y > 0) & scored).sum(0)
    share = true / np.maximum(scored_often, 1)
    if metric.name == "nll":
        p = share[(share > 0) & (share < 1)]
        weights = scored_often[(share > 0) & (share < 1)] / scored_often.sum()
        return float(-(weights * (p * np.log(p) + (1 - p) * np.log1p(-p))).sum())
    if metric.name == "element_accuracy":
        return float(np.maximum(true, scored_often - true).sum() / scored_often.sum())
    if metric.name == "subset_accuracy":
        return float(np.unique(y, axis=0, return_counts=True)[1].max() / len(y))
    if metric.name == "f1_macro":
        return float((2 * share / (1 + share)).mean())
    if metric.name == "f1_micro":  # the most frequent labels, and how many of them is best
        order = np.argsort(-share)
        right, called = np.cumsum(true[order]), np.cumsum(scored_often[order])
        return float((2 * right / (called + true.sum())).max())
    statistics = np.stack([np.broadcast_to(share, y.shape), np.where(scored, y, np.nan)], -1)
    return float(pooled_value(metric.name, statistics.reshape(len(y), -1), metric.labels))
