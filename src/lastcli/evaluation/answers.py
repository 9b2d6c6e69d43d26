"""What classifiers answer, example by example: right or wrong, -log p of the truth, and what F1 counts.

One form for all of them: outputs (n, S, C) for S steps (one where a model has one output a sequence), and truth

- (n, S) classes 0 … C - 1: the C outputs are logits of a softmax, one output alone is the logit of class 1;
- (n, S, C) zeros and ones, for `independent` labels: every output is a logit of its own.

A truth of -100 is not scored. Everything works on NumPy and JAX arrays alike and is traceable.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["IGNORED", "Answers", "f1_value"]

# The label of a step that is not scored.
IGNORED = -100


class Answers:
    """Outputs beside the truth.

    Args:
        outputs: (n, S, C).
        truth: (n, S), or (n, S, C) of independent labels.
        kept: (1 or n, S) bool, the steps that count at all.
        independent: whether every output is a label of its own.
        threshold: the probability above which class 1 of two, or a label, is the answer; None: 0.5.
        xp: numpy, or jax.numpy inside a traced function.
    """

    def __init__(
        self, outputs: Any, truth: Any, kept: Any, *, independent: bool, threshold: float | None = None, xp: Any = np
    ) -> None:
        self.outputs, self.xp, self.independent = outputs, xp, independent
        self.scored = (kept[..., None] if independent else kept) & (truth != IGNORED)
        self.truth = xp.where(self.scored, truth, 0).astype("int32")
        self.threshold = threshold
        self.cut = 0.0 if threshold is None else math.log(threshold / (1 - threshold))

    @property
    def decisions(self) -> Any:
        """Of the shape of the truth: the label, or the class, that is the answer."""
        if self.independent:
            return (self.outputs > self.cut).astype("int32")
        classes = self.outputs.shape[-1]
        if classes == 1 or (classes == 2 and self.threshold is not None):
            return (self.logit > self.cut).astype("int32")
        return self.outputs.argmax(-1).astype("int32")

    @property
    def logit(self) -> Any:
        """Of the shape of the truth: the logit of class 1 of two, or of each label."""
        if self.independent:
            return self.outputs
        return self.outputs[..., -1] - self.outputs[..., 0] if self.outputs.shape[-1] > 1 else self.outputs[..., 0]

    def right(self) -> Any:
        """Of the shape of the truth, bool; argmax of a row with NaN could be the right class by chance."""
        xp = self.xp
        nan = xp.isnan(self.outputs)
        return (self.decisions == self.truth) & ~(nan if self.independent else nan.any(-1))

    def surprise(self) -> Any:
        """Of the shape of the truth: -log p(truth) in nats."""
        xp, outputs = self.xp, self.outputs
        if self.independent or outputs.shape[-1] == 1:
            logit = self.logit
            return xp.logaddexp(xp.zeros_like(logit), logit) - xp.where(self.truth > 0, logit, xp.zeros_like(logit))
        largest = outputs.max(-1, keepdims=True)
        # the largest may be infinite, and then nothing is a number; `Metric.finite` says so
        normaliser = xp.log(xp.exp(outputs - largest).sum(-1)) + largest[..., 0]
        return normaliser - xp.take_along_axis(outputs, self.truth[..., None], -1)[..., 0]

    def totals(self, *, subset: bool = False) -> Any:
        """(n, 3): right answers, Σ -log p and how many are scored; `subset`: a step is right with all its labels."""
        xp, scored, right = self.xp, self.scored, self.right()
        surprise = xp.where(scored, self.surprise(), xp.zeros_like(self.surprise()))
        if subset:
            right, surprise = (right | ~scored).all(-1), surprise.sum(-1)
            scored = scored.any(-1)
        counted = (right & scored, surprise, scored)
        terms = [part.astype(self.outputs.dtype).reshape(len(part), -1) for part in counted]
        return xp.stack([term.sum(-1) for term in terms], -1)

    def counts(self, *, positive: bool) -> Any:
        """(n, 3·C), in the order (C, 3), of classes or labels: right, answered, true; `positive`: class 1 alone."""
        xp = self.xp
        if self.independent:
            called, true = (part > 0 for part in (self.decisions, self.truth))
            scored = self.scored
        else:
            classes = np.arange(1, 2) if positive else np.arange(max(self.outputs.shape[-1], 2))
            classes = classes[None, None]
            called, true = (part[..., None] == classes for part in (self.decisions, self.truth))
            scored = self.scored[..., None]
        parts = [(part & scored).astype(self.outputs.dtype).sum(1) for part in (called & true, called, true)]
        return xp.stack(parts, -1).reshape(len(self.outputs), -1)

    def ranked(self) -> Any:
        """(n, 2·m·k) logits and labels for `ranking.pooled_value`; the label is NaN where nothing is scored."""
        xp, logit = self.xp, self.logit
        label = xp.where(self.scored, self.truth.astype(logit.dtype), xp.full_like(logit, np.nan))
        return xp.stack([xp.where(self.scored, logit, xp.zeros_like(logit)), label], -1).reshape(len(logit), -1)


def f1_value(name: str, sums: np.ndarray, *, independent: bool) -> np.ndarray:
    """F1 = 2·right/(answered + true) from (..., 3·C) sums of `Answers.counts`, as scikit-learn's `f1_score`.

    "f1_macro" is the mean over the labels (0 for one that is never true and never the answer) or over the classes
    that are true or the answer somewhere; "f1_micro" is that of all counts together; "f1" that of the class alone.
    """
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    if name == "f1_micro":
        counts = counts.sum(-2, keepdims=True)
    both = counts[..., 1] + counts[..., 2]
    each = 2 * counts[..., 0] / np.where(both > 0, both, 1)
    if name == "f1_macro" and not independent:
        there = both > 0
        return np.where(there, each, 0).sum(-1) / np.maximum(there.sum(-1), 1)
    return each.mean(-1)
