"""What would do better than a run that named no method: one line, where the published tables of this project say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lastcli.plan import Plan
    from lastcli.results import PruneResult, SweepResult

__all__ = ["advice"]

# What is compared there: the default against elimination with a refit, on diagonal time-invariant models.
_KNOWN = "last"


def advice(plan: Plan, result: PruneResult | SweepResult, *, calibrated: bool) -> str | None:
    """A sentence, or None: a method was named, it is not the one that the tables compare, or nothing was lost.

    Args:
        calibrated: whether the run had calibration inputs.
    """
    if plan.method is not None or plan.methods is not None or plan.refit is not None or plan.refits is not None:
        return None
    if plan.compat is not None or not _loses(result):
        return None
    inputs = "the calibration inputs that are there" if calibrated else "--calibration FILE (unlabelled inputs)"
    sentence = (
        f"On the models of docs/results.md obs loses less than last at the same ratio: --method obs with {inputs}"
    )
    if plan.max_drop is not None and result.command == "prune":
        sentence += "; --method best tries every method within the same --max-drop"
    return f"{sentence}."


def _loses(result: PruneResult | SweepResult) -> bool:
    """Whether the default method removed states, and is not known to have lost nothing by it."""
    from lastcli.results import SweepResult

    if isinstance(result, SweepResult):
        return any(row.method == _KNOWN and row.ratio > 0 and not row.drop <= 0 for row in result.rows)
    if result.method != _KNOWN or result.ratio <= 0:
        return False
    return result.measured is None or not result.measured.drop <= 0
