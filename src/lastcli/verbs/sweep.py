"""`sweep`: the metric against the pruning ratio, methods and refits side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from lastcli.engine.protocol import Reduction
from lastcli.errors import UnsupportedModelError
from lastcli.evaluation.significance import compare
from lastcli.evaluation.sweep import Evaluation
from lastcli.plan import Method, Plan, Refit, method_of
from lastcli.plan.ratios import parse_ratios
from lastcli.reduction.compressor import Compressor
from lastcli.reduction.feasible import misfit
from lastcli.results import Anatomy, Costs, Gate, SweepResult, SweepRow
from lastcli.verbs.shared.anatomy import reduced_anatomy
from lastcli.verbs.shared.baseline import baseline_fault, lost_outputs, metric_notes
from lastcli.verbs.shared.certificates import as_stored, certificates
from lastcli.verbs.shared.costs import reduced_costs
from lastcli.verbs.shared.gates import baseline_gate, check_floor, passed, row_gates
from lastcli.verbs.shared.measuring import data_name, measure, metric_of, within_drop
from lastcli.verbs.shared.rebuilding import rebuild
from lastcli.verbs.shared.session import Session
from lastcli.verbs.shared.unstable import unstable_note, unstable_states

__all__ = ["DEFAULT_RATIOS", "sweep"]

DEFAULT_RATIOS = "0:0.9:0.1"
Run = tuple[Method, Refit, Decimal]


def sweep(session: Session, *, certify: bool = False, anatomy: bool = False) -> SweepResult:
    """One row for each ratio, method and refit of the plan; one compiled program and one reading of the data for all.

    Args:
        certify: also compute the certificates of every layer in every row.
        anatomy: also keep what the pictures of a report are drawn from.

    Raises:
        UsageError: there is no data, or a refit needs calibration inputs and there are none.
        InputError: the data does not fit the model.
    """
    begin = time.perf_counter()
    plan = session.plan
    runs, left_out = _runs(session)
    compressor = session.compressor(list(dict.fromkeys((method, refit) for method, refit, _ in runs)))
    compressor.decisions.extend(left_out)
    check_floor(
        plan, metric_of(session)
    )  # a split that does not fit, or a metric that does not suit it, is refused before any work
    runs, reduced, unfit = _reduce(session, compressor, runs)
    compressor.decisions.extend(unfit)
    candidates = [None, *(one.reductions for one in reduced)]
    evaluations = measure(session, candidates, "Sweeping", compare_outputs=True)
    baseline, rest = evaluations[0], evaluations[1:]
    rows = tuple(
        _row(session, compressor, run, one, found, baseline, certify) for run, one, found in zip(runs, reduced, rest)
    )
    fault = baseline_fault(session, baseline)
    if fault is not None:
        session.note(fault)
    chosen = _choose(rows, plan, baseline, rest) if plan.max_drop is not None and fault is None else None
    asked = row_gates(plan, rows)
    asked = (baseline_gate(fault), *asked) if asked else ()
    checkpoint = session.checkpoint
    labels = [f"{method.name} + {refit.name} at {float(ratio):g}" for method, refit, ratio in runs]
    notes = [unstable_note(compressor), fault, *metric_notes(session, baseline.metric), *lost_outputs(labels, rest)]
    return SweepResult(
        checkpoint=checkpoint.label,
        family=checkpoint.family.name,
        metric=baseline.metric.name,
        higher_is_better=baseline.metric.higher_is_better,
        baseline=baseline.value,
        baseline_ci=(baseline.ci_low, baseline.ci_high),
        n=baseline.n,
        rows=rows,
        chosen=chosen,
        states=compressor.states,
        parameters=checkpoint.parameters,
        layer_names=tuple(compressor.names),
        layer_states=tuple(system.states for system in compressor.systems),
        data=data_name(session),
        max_drop=plan.max_drop,
        fail_over=plan.fail_over,
        fail_under=plan.fail_under,
        passed=passed(asked),
        gates=(*asked, *_choice_gates(plan, chosen)),
        baseline_fault=fault,
        unstable=unstable_states(compressor),
        threshold=baseline.metric.threshold,
        compat=plan.compat,
        seconds=time.perf_counter() - begin,
        notes=(*compressor.decisions, *(note for note in notes if note)),
        anatomy=_anatomy(session, compressor, runs, reduced, _shown(rows, chosen)) if anatomy else None,
    )


def _choice_gates(plan: Plan, chosen: SweepRow | None) -> tuple[Gate, ...]:
    if plan.max_drop is None:
        return ()
    if chosen is None:
        return (Gate(kind="max_drop", ok=False, limit=plan.max_drop),)
    where = {"method": chosen.method, "refit": chosen.refit, "ratio": chosen.ratio}
    return (Gate(kind="max_drop", ok=True, limit=plan.max_drop, found=chosen.drop, **where),)  # type: ignore[arg-type]


def _shown(rows: Sequence[SweepRow], chosen: SweepRow | None) -> int:
    """The row to show layer by layer: the chosen one, else the middle one of what removes states."""
    if chosen is not None:
        return rows.index(chosen)
    removing = [i for i, row in enumerate(rows) if row.ratio > 0 and (row.method, row.refit) == _pair(rows[0])]
    return removing[len(removing) // 2] if removing else 0


def _pair(row: SweepRow) -> tuple[str, str]:
    return row.method, row.refit


def _anatomy(
    session: Session, compressor: Compressor, runs: Sequence[Run], reduced: Sequence[_Reduced], shown: int
) -> Anatomy:
    pairs = [(method, refit) for method, refit, _ in runs]
    return reduced_anatomy(
        session, compressor, pairs, [one.reductions for one in reduced], [one.costs for one in reduced], shown
    )


def _runs(session: Session) -> tuple[list[Run], list[str]]:
    """Every method with every refit at every ratio; and sentences about the pairs left out.

    A pair that makes no sense on this model is left out of a comparison; asked for alone, it is an error.

    Raises:
        LastError: no pair is left.
    """
    plan = session.reducing
    ratios = plan.ratios or ((plan.ratio,) if plan.ratio is not None else parse_ratios(DEFAULT_RATIOS))
    pairs: list[tuple[Method, Refit]] = []
    for method in plan.methods or (method_of(plan),):
        own = plan.refits or (plan.refit or method.refit(calibrated=session.has_calibration),)
        pairs += [(method, refit) for refit in own]
    wrong = {pair: error for pair in pairs if (error := misfit(session.checkpoint, *pair)) is not None}
    fitting = [pair for pair in pairs if pair not in wrong]
    if not fitting:
        raise next(iter(wrong.values()))
    sentences = [f"Left out: {method.name} + {refit.name}. {error}" for (method, refit), error in wrong.items()]
    return [(method, refit, ratio) for method, refit in fitting for ratio in ratios], sentences


@dataclass(frozen=True)
class _Reduced:
    """One run: what the file would hold, and how many parameters."""

    reductions: list[Reduction]
    parameters: int
    costs: Costs


def _reduce(
    session: Session, compressor: Compressor, runs: Sequence[Run]
) -> tuple[list[Run], list[_Reduced], list[str]]:
    """Every run as it would be stored; runs whose values do not fit the checkpoint's dtype, and sentences about them.

    Raises:
        UnsupportedModelError: none fits.
    """
    done: list[Run] = []
    found: list[_Reduced] = []
    errors: dict[str, UnsupportedModelError] = {}
    with session.bar("Reducing", len(runs)) as bar:
        for run in runs:
            method, refit, ratio = run
            try:
                reductions = compressor.reduce(method, refit, ratio=ratio)
                rebuilt = rebuild(session.checkpoint, reductions, compressor.layout)
            except UnsupportedModelError as error:
                errors[f"{method.name} + {refit.name} at {float(ratio):g}"] = error
            else:
                stored = as_stored(session.checkpoint, rebuilt, reductions)
                done.append(run)
                costs = reduced_costs(session.checkpoint, rebuilt, [one.system for one in stored])
                found.append(_Reduced(stored, rebuilt.parameters, costs))
            if bar is not None:
                bar.advance(1)
    if not done:
        raise next(iter(errors.values()))
    return done, found, [f"Left out: {label}. {error}" for label, error in errors.items()]


def _row(
    session: Session,
    compressor: Compressor,
    run: Run,
    reduced: _Reduced,
    found: Evaluation,
    baseline: Evaluation,
    certify: bool,
) -> SweepRow:
    method, refit, ratio = run
    metric = metric_of(session)
    against = compare(metric, baseline.statistics, found.statistics)
    return SweepRow(
        method=method.name,
        refit=refit.name,
        ratio=float(ratio),
        states=sum(reduction.system.stored_states for reduction in reduced.reductions),
        value=found.value,
        drop=float(metric.drop(baseline.value, found.value)),
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        layers=tuple(reduction.system.states for reduction in reduced.reductions),
        parameters=reduced.parameters,
        p_value=None if found.non_finite else against.p_value,
        max_difference=found.max_difference,
        mean_difference=found.mean_difference,
        certificates=certificates(compressor.names, compressor.systems, reduced.reductions) if certify else (),
    )


def _choose(rows: Sequence[SweepRow], plan: Plan, baseline: Evaluation, found: Sequence[Evaluation]) -> SweepRow | None:
    """The row that removes most within the drop; among equals the best value."""
    within = [row for row, evaluation in zip(rows, found) if within_drop(row.drop, baseline, evaluation, plan)]
    return max(within, key=lambda row: (row.ratio, -row.drop), default=None)
