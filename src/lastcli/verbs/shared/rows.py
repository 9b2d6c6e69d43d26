"""The rows of a sweep: runs of a method, a refit and a ratio, reduced and measured; what is kept already is not redone.

Runs are measured together, with one compiled program and one reading of the data; where rows are kept (`--resume`), a
few at a time. Of several processes each reduces some.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from lastcli.engine.protocol import Reduction
from lastcli.errors import UnsupportedModelError
from lastcli.evaluation.significance import compare
from lastcli.evaluation.sweep import Evaluation
from lastcli.parallel import processes
from lastcli.plan import Method, Refit
from lastcli.reduction.compressor import Compressor
from lastcli.results import Costs, SweepRow
from lastcli.verbs.shared.anatomy import drawn
from lastcli.verbs.shared.certificates import as_stored, certificates
from lastcli.verbs.shared.costs import reduced_costs
from lastcli.verbs.shared.finished import Finished, Rows
from lastcli.verbs.shared.measuring import measure, metric_of, within_drop
from lastcli.verbs.shared.rebuilding import rebuild
from lastcli.verbs.shared.session import Session

__all__ = ["Run", "finish", "key_of", "label_of"]

Run = tuple[Method, Refit, Decimal]

# Where rows are kept, about as long is lost with an interruption.
_GROUP_SECONDS = 60.0
_LARGEST_GROUP = 16


def key_of(run: Run) -> tuple[str, str, str]:
    """What a row is kept under."""
    method, refit, ratio = run
    return method.name, refit.name, str(ratio)


def label_of(run: Run) -> str:
    """What a sentence calls a run."""
    method, refit, ratio = run
    return f"{method.name} + {refit.name} at {float(ratio):g}"


def finish(session: Session, compressor: Compressor, runs: Sequence[Run], rows: Rows, *, certify: bool) -> Evaluation:
    """Reduce and measure every run that is not done yet, all at once or, where rows are kept, a few at a time.

    Returns:
        The unpruned model.
    """
    todo = [run for run in runs if key_of(run) not in rows.done]
    compressor.prepare(list(dict.fromkeys((method, refit) for method, refit, _ in todo)))
    baseline = None
    for group in _groups(todo, kept=session.plan.resume is not None):
        reduced = dict(zip(group, _reduce(session, compressor, group)))
        fitting = {run: one for run, one in reduced.items() if isinstance(one, _Reduced)}
        found: dict[Run, Evaluation] = {}
        if fitting:
            candidates = [None, *(one.reductions for one in fitting.values())]
            baseline, *rest = measure(session, candidates, "Sweeping", compare_outputs=True)
            found = dict(zip(fitting, rest))
        for run, one in reduced.items():
            if baseline is None or not isinstance(one, _Reduced):
                rows.add(key_of(run), Finished(None, left_out=str(one)))
                continue
            row = _row(session, compressor, run, one, found[run], baseline, certify)
            within = within_drop(row.drop, baseline, found[run], session.plan)
            pictured = drawn(run[0], one.reductions, one.costs)
            rows.add(key_of(run), Finished(row, within, found[run].non_finite, drawn=pictured))
    return measure(session, [None], "Baseline")[0] if baseline is None else baseline


def _groups(runs: Sequence[Run], *, kept: bool) -> Iterator[Sequence[Run]]:
    """The runs that are measured in one reading of the data.

    Where rows are kept as they finish, as many as take about a minute: every reading costs a pass of the unpruned model
    as well.
    """
    least = processes.count()
    size = least if kept else max(len(runs), 1)
    start = 0
    while start < len(runs):
        begin = time.perf_counter()
        group = runs[start : start + size]
        yield group
        start += len(group)
        each = max((time.perf_counter() - begin) / len(group), 1e-6)
        # clocks differ, and all must go on with the same group
        size = processes.first_only(partial(max, least, min(int(_GROUP_SECONDS / each), _LARGEST_GROUP)))


@dataclass(frozen=True)
class _Reduced:
    """One run: what the file would hold, how many parameters, and what they cost."""

    reductions: list[Reduction]
    parameters: int
    costs: Costs


def _reduce(session: Session, compressor: Compressor, runs: Sequence[Run]) -> list[_Reduced | UnsupportedModelError]:
    """Every run as it would be stored, or why its values do not fit the checkpoint's dtype; each process does some."""
    before = len(compressor.decisions)

    def one(run: Run) -> tuple[_Reduced | UnsupportedModelError, list[str]]:
        method, refit, ratio = run
        try:
            reductions = compressor.reduce(method, refit, ratio=ratio)
            rebuilt = rebuild(session.checkpoint, reductions, compressor.layout)
        except UnsupportedModelError as error:
            found: _Reduced | UnsupportedModelError = error
        else:
            stored = as_stored(session.checkpoint, rebuilt, reductions)
            costs = reduced_costs(session.checkpoint, rebuilt, [one.system for one in stored])
            found = _Reduced(stored, rebuilt.parameters, costs)
        if bar is not None:
            bar.advance(processes.count_all())
        return found, compressor.decisions[before:]

    with session.bar("Reducing", len(runs)) as bar:
        done = processes.divided(one, runs)
    # what was decided in one process is said by all
    said = [sentence for _, decisions in done for sentence in decisions]
    compressor.decisions[before:] = dict.fromkeys(said)
    return [found for found, _ in done]


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
