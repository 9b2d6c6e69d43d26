"""Are the kept states those that the recorded method keeps? Computed anew for methods that need no data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lastcli.errors import LastError
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import METHODS, REFITS, Plan
from lastcli.reduction.compressor import Compressor
from lastcli.results import Check
from lastcli.verbs.shared.matching import Claim
from lastcli.verbs.shared.proof import RECOMPUTED, TRUSTED
from lastcli.verbs.shared.record import Record

__all__ = ["check_selection", "plan_of"]

# Two energies that differ by less are a tie, which another processor may break the other way.
_TIE = 1e-6


def plan_of(step: Record) -> Plan:
    """The options that a record names."""
    options = {key: value for key, value in step.options.items() if value is not None}
    return Plan(layout=step.layout, compat=step.compat, **options)


def check_selection(before: Checkpoint, step: Record, claims: Sequence[Claim]) -> Check | None:
    """Whether the recorded method keeps these states; None for methods that rank no single states."""
    method = METHODS.get(step.method)
    if method is None or method.moves_poles:
        return None
    staged = step.options.get("steps") not in (None, 1)
    if method.eliminates or staged or not step.options or step.states_after is None:
        return Check(name="selection", ok=True, detail=f"which states {step.method} keeps is its word", how=TRUSTED)
    compressor = Compressor(before, plan_of(step))
    try:
        kept = compressor.kept(method, REFITS["none"], states=step.states_after)
    except LastError as error:
        return Check(name="selection", ok=True, detail=f"not computed anew: {error}", how=TRUSTED)
    scores = compressor.scores(method)
    for layer, claim, wanted, score in zip(before.layers, claims, kept, scores):
        if claim.wrong is None and not _same_but_ties(claim.kept, wanted, score):
            detail = f"{layer.name}: {step.method} keeps other states"
            return Check(name="selection", ok=False, detail=detail)
    return Check(name="selection", ok=True, detail=f"the states that {step.method} keeps", how=RECOMPUTED)


def _same_but_ties(found: np.ndarray, wanted: np.ndarray, score: np.ndarray) -> bool:
    if found.shape == wanted.shape and (found == wanted).all():
        return True
    if found.shape[0] != wanted.shape[0]:
        return False
    for row, other, value in zip(found, wanted, score):
        strangers, missed = np.setdiff1d(row, other), np.setdiff1d(other, row)
        if strangers.size and missed.size:
            best, worst = value[missed].max(), value[strangers].min()
            if not abs(best - worst) <= _TIE * max(abs(best), 1e-300):
                return False
        elif strangers.size or missed.size:
            return False
    return True
