"""A metric of reduced models on the held-out split, through the family's forward pass or the user's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lastcli.engine.protocol import Reduction
from lastcli.evaluation.significance import compare
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import Plan
from lastcli.verbs.shared.baseline import require_finite
from lastcli.verbs.shared.rebuilding import as_checkpoint, rebuild
from lastcli.verbs.shared.session import Session

if TYPE_CHECKING:
    from lastcli.evaluation.external import ExternalForward
    from lastcli.evaluation.metrics import Metric
    from lastcli.evaluation.sweep import Evaluation

__all__ = ["data_name", "measure", "measure_checkpoint", "metric_of", "within_drop"]


def metric_of(session: Session) -> Metric:
    """The metric of the plan for this model and split.

    Raises:
        UsageError: the metric does not fit the task.
    """
    from lastcli.evaluation.choice import choose_metric

    plan = session.plan
    if session.external is not None:
        return session.external.metric(
            plan.metric, session.examples.measured_on, warmup=plan.warmup, threshold=plan.threshold
        )
    split = session.examples.split  # its labels may settle the task
    forward = session.checkpoint.require_forward()
    return choose_metric(plan.metric, forward, split, warmup=plan.warmup, threshold=plan.threshold)


def data_name(session: Session) -> str:
    """What the metric was taken on."""
    split = session.examples.measured_on
    return f"the data of {session.plan.forward}" if split is None else str(split.name)


def measure(
    session: Session, candidates: Sequence[Sequence[Reduction] | None], label: str, *, compare_outputs: bool = False
) -> list[Evaluation]:
    """Evaluate reductions of the session's checkpoint, masked; None stands for the unpruned model.

    One compiled program serves all of one size, see `evaluation.widths`.

    Raises:
        InputError: outputs of the unpruned model are not finite.
    """
    found = _measure(session, candidates, label, compare_outputs=compare_outputs)
    for reductions, evaluation in zip(candidates, found):
        if reductions is None:
            require_finite(session, session.checkpoint, evaluation, data_name(session))
    return found


def _measure(
    session: Session, candidates: Sequence[Sequence[Reduction] | None], label: str, *, compare_outputs: bool
) -> list[Evaluation]:
    from lastcli.evaluation.sweep import evaluate_candidates
    from lastcli.evaluation.widths import embedded

    if session.measured_by is not None:
        external, _ = session.measured_by
        return [_external(session, external, session.checkpoint, reductions) for reductions in candidates]
    checkpoint = session.checkpoint
    original, split = checkpoint.systems, session.examples.split
    systems = [original if one is None else embedded(original, one, split.n * split.steps) for one in candidates]
    with session.bar(label, split.n * len(systems)) as bar:
        return evaluate_candidates(
            checkpoint.require_forward(),
            checkpoint.params,
            systems,
            split,
            metric_of(session),
            batch_size=session.plan.batch_size,
            progress=bar,
            compare_outputs=compare_outputs,
        )


def measure_checkpoint(session: Session, checkpoint: Checkpoint, label: str) -> Evaluation:
    """Evaluate a checkpoint as it is, on the session's split: what its own tensors say, at their own size."""
    from lastcli.evaluation.sweep import evaluate_candidates

    if session.measured_by is not None:
        return _external(session, session.measured_by[0], checkpoint, None)
    split, metric = session.examples.split, metric_of(session)
    with session.bar(label, split.n) as bar:
        return evaluate_candidates(
            checkpoint.require_forward(),
            checkpoint.params,
            [checkpoint.systems],
            split,
            metric,
            batch_size=session.plan.batch_size,
            progress=bar,
        )[0]


def _external(
    session: Session, external: ExternalForward, checkpoint: Checkpoint, reductions: Sequence[Reduction] | None
) -> Evaluation:
    if reductions is not None:
        checkpoint = as_checkpoint(checkpoint, rebuild(checkpoint, reductions, session.layout))
    tensors = {name: checkpoint.read(name) for name in checkpoint.reader.tensors}
    split = session.examples.measured_on
    with session.bar("Evaluating", 1 if split is None else split.n) as bar:
        return external.evaluate(tensors, split, metric_of(session), batch_size=session.plan.batch_size, progress=bar)


def within_drop(drop: float, baseline: Evaluation, found: Evaluation, plan: Plan) -> bool:
    """Whether a model meets `max_drop`: by the point estimate, or with `significance` by the paired upper limit."""
    if plan.max_drop is None:
        return True
    if plan.significance is None or not math.isfinite(drop):
        return drop <= plan.max_drop + 1e-12
    against = compare(baseline.metric, baseline.statistics, found.statistics, confidence=1 - plan.significance)
    return against.upper is not None and against.upper <= plan.max_drop
