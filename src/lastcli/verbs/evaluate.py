"""`evaluate`: the metric of a checkpoint on a held-out split."""

from __future__ import annotations

from lastcli.results import EvalResult
from lastcli.verbs.shared.baseline import baseline_fault, metric_notes, require_finite
from lastcli.verbs.shared.gates import baseline_gate, check_floor, passed, value_gate
from lastcli.verbs.shared.measuring import data_name, measure_checkpoint, metric_of
from lastcli.verbs.shared.session import Session

__all__ = ["evaluate"]


def evaluate(session: Session) -> EvalResult:
    """The plan's metric with its 95% interval.

    Raises:
        UsageError: there is no data.
        InputError: the data does not fit the model, or the outputs are not finite.
        UnsupportedModelError: the model around the layers is not known and no forward pass was given.
    """
    checkpoint = session.checkpoint
    metric, floor = metric_of(session), session.plan.fail_under
    check_floor(session.plan, metric)
    evaluation = measure_checkpoint(session, checkpoint, "Evaluating")
    require_finite(session, checkpoint, evaluation, data_name(session))
    fault = baseline_fault(session, evaluation)
    if fault is not None:
        session.note(fault)
    gates = () if floor is None else (baseline_gate(fault), value_gate(floor, evaluation.value))
    return EvalResult(
        checkpoint=checkpoint.label,
        family=checkpoint.family.name,
        metric=metric.name,
        value=evaluation.value,
        n=evaluation.n,
        ci_low=evaluation.ci_low,
        ci_high=evaluation.ci_high,
        higher_is_better=metric.higher_is_better,
        data=data_name(session),
        warmup=session.plan.warmup,
        threshold=metric.threshold,
        fail_under=floor,
        passed=passed(gates),
        gates=gates,
        notes=(*([fault] if fault else []), *metric_notes(session, metric)),
    )
