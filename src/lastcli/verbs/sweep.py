"""`sweep`: the metric against the pruning ratio, methods and refits side by side."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence

from lastcli.errors import UnsupportedModelError
from lastcli.plan import Method, Plan, Refit, method_of
from lastcli.plan.ratios import parse_ratios
from lastcli.reduction.compressor import Compressor
from lastcli.reduction.feasible import misfit
from lastcli.results import Anatomy, Gate, PublishedNumbers, SweepResult, SweepRow
from lastcli.verbs.shared.anatomy import Drawn, reduced_anatomy
from lastcli.verbs.shared.baseline import baseline_fault, lost_outputs, metric_notes
from lastcli.verbs.shared.finished import Finished, finished_rows
from lastcli.verbs.shared.gates import baseline_gate, check_floor, passed, row_gates
from lastcli.verbs.shared.interrupted import forget_matchings
from lastcli.verbs.shared.measuring import data_name, metric_of
from lastcli.verbs.shared.published import other_metric_note, published_numbers, with_published
from lastcli.verbs.shared.rows import Run, finish, key_of, label_of
from lastcli.verbs.shared.session import Session
from lastcli.verbs.shared.shares import state_parameters, step_work
from lastcli.verbs.shared.unstable import unstable_note, unstable_states

__all__ = ["DEFAULT_RATIOS", "runs_of", "sweep"]

DEFAULT_RATIOS = "0:0.9:0.1"


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
    runs, left_out = runs_of(session)
    compressor = session.compressor(
        list(dict.fromkeys((method, refit) for method, refit, _ in runs)),
        ratios=list(dict.fromkeys(ratio for _, _, ratio in runs)),
    )
    compressor.decisions.extend(left_out)
    # a split that does not fit, or a metric that does not suit it, is refused before any work
    check_floor(plan, metric_of(session))
    with finished_rows(session, compressor.calibration, certify=certify) as kept:
        baseline = finish(session, compressor, runs, kept, certify=certify)
    forget_matchings(plan.resume)
    published = published_numbers(plan, baseline.metric.name)
    results = {run: _beside(kept.done[key_of(run)], published) for run in runs}
    compressor.decisions.extend(_left_out(results))
    rows = tuple(one.row for one in results.values() if one.row is not None)
    fault = baseline_fault(session, baseline)
    if fault is not None:
        session.note(fault)
    chosen = _choose(results.values()) if plan.max_drop is not None and fault is None else None
    asked = row_gates(plan, rows)
    asked = (baseline_gate(fault), *asked) if asked else ()
    checkpoint = session.checkpoint
    measured = session.examples.measured_on
    work = None if measured is None else step_work(checkpoint, measured.x.shape[2 if measured.x.ndim == 4 else 1])
    lost = [(label_of(run), one.non_finite) for run, one in results.items()]
    notes = [
        unstable_note(compressor),
        fault,
        *metric_notes(session, baseline.metric),
        other_metric_note(plan, baseline.metric.name),
        *lost_outputs(lost, baseline.n),
    ]
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
        published=published,
        state_parameters=state_parameters(checkpoint),
        multiply_adds=None if work is None else work.multiply_adds,
        state_multiply_adds=None if work is None else work.of_states,
        seconds=time.perf_counter() - begin,
        notes=(*compressor.decisions, *(note for note in notes if note)),
        anatomy=_anatomy(session, compressor, results, _shown(rows, chosen)) if anatomy else None,
    )


def _beside(one: Finished, published: PublishedNumbers | None) -> Finished:
    return one if one.row is None else dataclasses.replace(one, row=with_published(one.row, published))


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


def _anatomy(session: Session, compressor: Compressor, results: Mapping[Run, Finished], shown: int) -> Anatomy:
    found: list[tuple[tuple[Method, Refit], Drawn]] = [
        ((method, refit), one.drawn) for (method, refit, _), one in results.items() if one.drawn is not None
    ]
    return reduced_anatomy(session, compressor, [pair for pair, _ in found], [one for _, one in found], shown)


def runs_of(session: Session) -> tuple[list[Run], list[str]]:
    """Every method with every refit at every ratio; and sentences about the pairs left out.

    A pair that makes no sense on this model is left out of a comparison; asked for alone, it is an error.

    Raises:
        LastError: no pair is left.
    """
    plan = session.reducing
    ratios = plan.ratios or ((plan.ratio,) if plan.ratio is not None else parse_ratios(DEFAULT_RATIOS))
    pairs: list[tuple[Method, Refit]] = []
    for method in plan.methods or (method_of(plan),):
        own = plan.refits or (plan.refit or method.refit(calibrated=session.examples.has_calibration),)
        pairs += [(method, refit) for refit in own]
    wrong = {pair: error for pair in pairs if (error := misfit(session.checkpoint, *pair)) is not None}
    fitting = [pair for pair in pairs if pair not in wrong]
    if not fitting:
        raise next(iter(wrong.values()))
    sentences = [f"Left out: {method.name} + {refit.name}. {error}" for (method, refit), error in wrong.items()]
    return [(method, refit, ratio) for method, refit in fitting for ratio in ratios], sentences


def _left_out(results: Mapping[Run, Finished]) -> list[str]:
    """Sentences about the runs whose values do not fit the checkpoint's dtype.

    Raises:
        UnsupportedModelError: none fits.
    """
    wrong = {run: one.left_out for run, one in results.items() if one.row is None}
    if len(wrong) == len(results):
        raise UnsupportedModelError(next(iter(wrong.values())))
    return [f"Left out: {label_of(run)}. {sentence}" for run, sentence in wrong.items()]


def _choose(results: Iterable[Finished]) -> SweepRow | None:
    """The row that removes most within the drop; among equals the best value."""
    within = [one.row for one in results if one.row is not None and one.within]
    return max(within, key=lambda row: (row.ratio, -row.drop), default=None)
