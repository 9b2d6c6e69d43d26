"""`prune`: reduce, rebuild, write; or the largest ratio whose drop on a split stays within a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lastcli import containers
from lastcli.engine.protocol import Reduction
from lastcli.errors import GateError, UsageError
from lastcli.evaluation.significance import compare
from lastcli.model.checkpoint import Checkpoint
from lastcli.parallel import processes
from lastcli.plan import BEST, REFITS, Method, Plan, Refit, method_of
from lastcli.reduction.compressor import Compressor
from lastcli.results import Anatomy, LayerCertificate, LayerPruned, Measured, PruneResult, SearchResult
from lastcli.verbs.shared.anatomy import drawn, reduced_anatomy
from lastcli.verbs.shared.baseline import baseline_fault, lost_outputs, metric_notes
from lastcli.verbs.shared.certificates import (
    as_stored,
    certificates,
    constant_notes,
    error_notes,
    refuse_hopeless,
    storage_notes,
)
from lastcli.verbs.shared.costs import reduced_costs
from lastcli.verbs.shared.interrupted import forget_matchings
from lastcli.verbs.shared.kept_states import kept_note
from lastcli.verbs.shared.measuring import data_name, measure, metric_of
from lastcli.verbs.shared.rebuilding import (
    Rebuilt,
    as_checkpoint,
    companions_brought,
    rebuild,
    shards_for,
    write_checkpoint,
)
from lastcli.verbs.shared.recipe import check_recipe_place, write_recipe
from lastcli.verbs.shared.record import provenance
from lastcli.verbs.shared.search import Search, baseline_of
from lastcli.verbs.shared.session import Session
from lastcli.verbs.shared.sizes import carried_bytes, size_note
from lastcli.verbs.shared.unstable import unstable_note, unstable_states
from lastcli.verbs.shared.upstream_config import config_note

__all__ = ["prune"]


@dataclass(frozen=True)
class _Goal:
    method: Method
    refit: Refit
    reductions: Sequence[Reduction]
    plan: Plan
    search: SearchResult | None = None


def prune(
    session: Session,
    out: Path | None,
    *,
    dry_run: bool = False,
    force: bool = False,
    shard_bytes: int | None = None,
    anatomy: bool = False,
) -> PruneResult:
    """Reduce the checkpoint to the plan's ratio, number of states or largest accepted drop, and write it.

    Args:
        out: where the compact checkpoint goes; its suffix names the container. None only for a dry run.
        dry_run: do everything but write.
        force: replace an existing output.
        shard_bytes: write a safetensors folder of shards of at most so many bytes.
        anatomy: also keep what the pictures of a report are drawn from.

    Raises:
        UsageError: no goal, no output, or a refit that needs calibration inputs and has none.
        GateError: no model stays within `max_drop`; nothing is written.
        UnsupportedModelError: the model cannot hold the result, states of |λ| >= 1 are refused, or the result is far
            from the original over all inputs and neither data nor `force` says that this does not matter.
        OutputError: the output is the input, exists, or cannot be written.
    """
    plan, checkpoint = session.reducing, session.checkpoint
    if out is None and not dry_run and plan.out is not None:
        out = Path(plan.out)
    if out is None and not dry_run:
        raise UsageError("Say where the smaller checkpoint goes with --out, or look first with --dry-run.")
    if out is not None:
        shard_bytes = shards_for(checkpoint, out, shard_bytes)
        processes.first_only(partial(_check_places, checkpoint, out, shard_bytes, plan, force=force or dry_run))
    if not dry_run and processes.index() == 0:
        # the record wants the sha256 of the input: a thread begins with it while JAX loads and layers are certified
        _ = checkpoint.hashing
    compressor, goal = _reduce(session)
    rebuilt = rebuild(checkpoint, goal.reductions, compressor.layout)
    stored = as_stored(checkpoint, rebuilt, goal.reductions)
    before = sum(system.stored_states for system in compressor.systems)
    after = sum(reduction.system.stored_states for reduction in goal.reductions)
    ratio = float(plan.ratio) if plan.ratio is not None else 1 - after / before
    size_before = carried_bytes(checkpoint)
    found = certificates(compressor.names, compressor.systems, stored, compressor.data_errors(stored))
    notes = _notes(session, compressor, after, rebuilt.sizes)
    fitted = goal.refit.needs_calibration or plan.match_output
    notes += [
        *error_notes(found, calibrated=fitted),
        *constant_notes(found, goal.method),
        *storage_notes(checkpoint, goal.reductions, stored),
    ]
    said = config_note(checkpoint, out, shard_bytes, rebuilt.sizes)
    notes += [said] if said else []
    if plan.data is None and plan.max_drop is None and not (force or dry_run):
        refuse_hopeless(found)
    measured = _measured(session, stored, notes) if plan.data is not None and goal.search is None else None
    written, recipe, size_after = None, None, _estimate(session, rebuilt, size_before)
    if not dry_run and out is not None:
        record = provenance(checkpoint, goal.reductions, goal.plan, goal.method, goal.refit, ratio)

        def write() -> tuple[str, int, str | None]:
            resume = None if plan.resume is None or shard_bytes is None else Path(plan.resume)
            receipt = write_checkpoint(
                checkpoint, rebuilt, record, out, force=force, shard_bytes=shard_bytes, resume=resume
            )
            beside = write_recipe(session, goal.plan, out, force=force) if plan.method is BEST else None
            return str(receipt.path), receipt.bytes, None if beside is None else str(beside)

        written, size_after, recipe = processes.first_only(write)
        forget_matchings(plan.resume)
        size_before = carried_bytes(checkpoint, size_after - rebuilt.nbytes)
    return PruneResult(
        checkpoint=checkpoint.label,
        family=checkpoint.family.name,
        method=goal.method.name,
        refit=goal.refit.name,
        ratio=ratio,
        states_before=before,
        states_after=after,
        parameters_before=checkpoint.parameters,
        parameters_after=rebuilt.parameters,
        bytes_before=size_before,
        bytes_after=size_after,
        **_decoding(checkpoint, rebuilt),
        layers=_layers(compressor, stored, found),
        out=written,
        steps=goal.plan.steps,
        recipe=recipe,
        layout=compressor.layout,
        dry_run=dry_run,
        compat=plan.compat,
        search=goal.search,
        measured=measured,
        unstable=unstable_states(compressor),
        notes=(*compressor.decisions, *notes),
        anatomy=_anatomy(session, compressor, goal, rebuilt, stored) if anatomy else None,
    )


def _check_places(checkpoint: Checkpoint, out: Path, shard_bytes: int | None, plan: Plan, *, force: bool) -> None:
    """Refuse, before any work, places that cannot be written; of several processes the first one writes and looks."""
    matches = plan.method is BEST or plan.match_output or (plan.refit is not None and plan.refit.matches_output)
    containers.check_resume(plan.resume, out, shard_bytes, anything_else=matches)
    companions = companions_brought(checkpoint.reader)
    containers.check_output(out, inputs=[checkpoint.path], shard_bytes=shard_bytes, force=force, companions=companions)
    if plan.method is BEST:
        check_recipe_place(out, force=force)


def _anatomy(
    session: Session, compressor: Compressor, goal: _Goal, rebuilt: Rebuilt, stored: Sequence[Reduction]
) -> Anatomy:
    costs = reduced_costs(session.checkpoint, rebuilt, [one.system for one in stored])
    return reduced_anatomy(session, compressor, [(goal.method, goal.refit)], [drawn(goal.method, stored, costs)], 0)


def _decoding(checkpoint: Checkpoint, rebuilt: Rebuilt) -> dict[str, int]:
    """What a step of one sequence cost, and will cost; nothing where models are not run step by step."""
    before, after = checkpoint.decoding, as_checkpoint(checkpoint, rebuilt).decoding
    if before is None or after is None:
        return {}
    return {
        "state_bytes_before": before.state_bytes,
        "state_bytes_after": after.state_bytes,
        "multiply_adds_before": before.multiply_adds,
        "multiply_adds_after": after.multiply_adds,
    }


def _notes(session: Session, compressor: Compressor, after: int, sizes: Sequence[int]) -> list[str]:
    """What is not as the plan, the file or the name of the metric would have it."""
    kept = kept_note(
        compressor.systems, session.reducing, after, pinned=bool(compressor.unstable) and compressor.pins_unstable
    )
    if kept is not None:
        session.note(kept)
    measures = session.plan.data is not None or session.plan.max_drop is not None
    found = (
        session.checkpoint.family.size_note(sizes),
        unstable_note(compressor),
        kept,
        size_note(session.checkpoint),
        *(metric_notes(session, metric_of(session)) if measures else []),
    )
    return [note for note in found if note]


def _reduce(session: Session) -> tuple[Compressor, _Goal]:
    plan = session.reducing
    if plan.method is BEST:
        return _reduce_best(session)
    method = method_of(plan)
    available = session.examples.has_calibration
    refit = plan.refit or method.refit(calibrated=available)
    compressor = session.compressor([(method, refit)])
    if plan.data is not None or plan.max_drop is not None:
        metric_of(session)  # a split that does not fit is refused before any work
    if plan.max_drop is not None:
        found = Search(session, compressor, method, refit, baseline_of(session)).run()
        result = found.result
        if found.reductions is None:
            tried = len(result.steps)
            raise GateError(
                f"No model of {tried} tried ({method.name}, refit {refit.name}) stays within a drop of "
                f"{plan.max_drop:g} on {result.data} (baseline {result.baseline:.4g}); nothing was written."
            )
        return compressor, _Goal(method, refit, found.reductions, plan, result)
    if plan.states is not None:
        return compressor, _Goal(method, refit, compressor.reduce(method, refit, states=plan.states), plan)
    if plan.ratio is None:
        raise UsageError("Say how far to prune: --ratio 0.33, --states N, or --max-drop 0.01 with --data.")
    return compressor, _Goal(method, refit, compressor.reduce(method, refit, ratio=plan.ratio), plan)


def _reduce_best(session: Session) -> tuple[Compressor, _Goal]:
    from lastcli.verbs.shared.best import find_best

    metric_of(session)
    best = find_best(session)
    plan, reductions = best.plan.replace(layout=best.compressor.layout), best.found.reductions
    return best.compressor, _Goal(method_of(plan), plan.refit or REFITS["none"], reductions or [], plan, best.result)


def _measured(session: Session, stored: Sequence[Reduction], notes: list[str]) -> Measured:
    """Original and reduced model on the held-out split, for a run that was given one; adds to `notes`."""
    baseline, found = measure(session, [None, stored], "Measuring", compare_outputs=True)
    metric = baseline.metric
    fault = baseline_fault(session, baseline)
    warnings = [*([fault] if fault else []), *lost_outputs([("The pruned model", found.non_finite)], found.n)]
    for sentence in warnings:
        session.note(sentence)
    notes += warnings
    return Measured(
        metric=metric.name,
        n=baseline.n,
        baseline=baseline.value,
        value=found.value,
        drop=float(metric.drop(baseline.value, found.value)),
        p_value=None if found.non_finite else compare(metric, baseline.statistics, found.statistics).p_value,
        max_difference=found.max_difference,
        mean_difference=found.mean_difference,
        data=data_name(session),
    )


def _layers(
    compressor: Compressor, reductions: Sequence[Reduction], found: Sequence[LayerCertificate]
) -> tuple[LayerPruned, ...]:
    return tuple(
        LayerPruned(
            name=certificate.name,
            states=reduction.system.states,
            states_before=system.states,
            sets=system.sets,
            multi=system.multi,
            kept=np.asarray(reduction.kept),
            hinf_error_bound=certificate.hinf_error_bound,
            hinf_error=certificate.hinf_error,
            hinf_exact=certificate.hinf_exact,
            h2_error=certificate.h2_error,
            dc_error=certificate.dc_error,
            data_error=certificate.data_error,
        )
        for certificate, system, reduction in zip(found, compressor.systems, reductions)
    )


def _estimate(session: Session, rebuilt: Rebuilt, size_before: int) -> int:
    """Bytes the output will have: its tensors, and what the input's container adds to its own."""
    return rebuilt.nbytes + max(size_before - session.checkpoint.reader.nbytes, 0)
