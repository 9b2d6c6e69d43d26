"""Is the full model something that a pruned one can be compared with? What is said where it is not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from lastcli.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lastcli.evaluation.metrics import Metric
    from lastcli.evaluation.sweep import Evaluation
    from lastcli.verbs.shared.session import Session

__all__ = [
    "baseline_fault",
    "lost_outputs",
    "metric_notes",
    "outside_tensors",
    "require_finite",
]

# Options that say how a reduced model is written; the forward pass does not depend on them.
_WRITTEN = frozenset({"form"})


def require_finite(session: Session, checkpoint: Checkpoint, found: Evaluation, data: str) -> None:
    """Refuse a full model whose outputs on the split `data` are not finite.

    Raises:
        InputError: which file, how many examples, and which tensor is the reason.
    """
    if not found.finite:
        from lastcli.evaluation import soundness

        soundness.require_finite(found, checkpoint.label, data, outside_tensors(session, checkpoint))


def outside_tensors(session: Session, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The tensors outside the layers that a forward pass reads: those of the family's, all for the user's own."""
    if session.external is None:
        return dict(checkpoint.params)
    skip = checkpoint.state_tensors
    return {name: checkpoint.read(name) for name in checkpoint.reader.tensors if name not in skip}


def baseline_fault(session: Session, found: Evaluation) -> str | None:
    """Why the full model proves nothing: it does not beat an answer that looks at no input. None where it does.

    A gate fails with this sentence; every other command warns with it.
    """
    from lastcli.evaluation.soundness import beats_trivial, trivial_value

    split = session.examples.measured_on
    if split is None or beats_trivial(found, split) is not False:
        return None
    name = found.metric.name
    value, blind = (_shown(found.metric, v) for v in (found.value, trivial_value(found.metric, split)))
    trivial = "an answer that looks at no input"
    if name == "accuracy":
        trivial = "the most frequent class"
    elif name in ("nll", "perplexity"):
        trivial = "the frequencies of the labels"
    elif not found.metric.classifies:
        trivial = "the mean of the targets"
    return (
        f"The full model does not beat {trivial} on {split.name}: {name} {value}, and {blind} for always answering "
        f"that; {_suspects(session)}"
    )


def _shown(metric: Metric, value: float | None) -> str:
    if value is None or not (metric.share or metric.name == "fit"):
        return f"{value:.4g}"
    return f"{100 * value if metric.share else value:.1f}%"


def _suspects(session: Session) -> str:
    """The options most likely to be wrong: what was assumed, then what was said by hand."""
    if session.external is not None:
        return f"look at what --forward {session.plan.forward} computes, and at the labels."
    settings = {key: s for key, s in session.checkpoint.settings.items() if key not in _WRITTEN}
    assumed = [f"{key}={s.value}" for key, s in settings.items() if s.source == "assumed"]
    given = [f"{key}={s.value}" for key, s in settings.items() if s.source in ("flag", "recipe")]
    parts = []
    if assumed:
        parts.append(f"assumed and perhaps wrong: {', '.join(assumed)} (set with --set or a sidecar)")
    if given:
        parts.append(f"given by flag or recipe: {', '.join(given)}")
    return ("; ".join(parts) if parts else "nothing about it was assumed, so look at the labels and the scale") + "."


def metric_notes(session: Session, metric: Metric) -> list[str]:
    """What a reader must know of how the metric is taken."""
    decided = (
        None
        if metric.threshold is None
        else f"The answer is {'a label' if metric.labels else 'class 1'} above a probability of {metric.threshold:g}."
    )
    outputs = None if session.measured_by is None else session.measured_by[1]
    return [note for note in (_pooled_note(session, metric), decided, outputs) if note]


def _pooled_note(session: Session, metric: Metric) -> str | None:
    """That a metric of several outputs is one number over all of them, where that makes a difference."""
    split = session.examples.measured_on
    if split is None or split.y is None or split.y.ndim < 2 or split.y.shape[-1] < 2 or not metric.pooled:
        return None
    part = "root" if metric.name == "rmse" else "quotient"
    return (
        f"{metric.name} pools the {split.y.shape[-1]} outputs: one {part} of sums over all of them, not the mean of "
        f"the {metric.name} of each."
    )


def lost_outputs(non_finite: Iterable[tuple[str, int]], n: int) -> list[str]:
    """A sentence for each reduced model, by its name, whose outputs are not finite for some of n examples."""
    return [
        f"{label}: outputs are NaN or infinite for {count} of {n} examples, which counts as an infinite loss."
        for label, count in non_finite
        if count
    ]
