"""The gates of a run: demands that a model meets or misses, each a result of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lastcli.errors import UsageError
from lastcli.plan import Plan
from lastcli.results import Gate, SweepRow

if TYPE_CHECKING:
    from lastcli.evaluation.metrics import Metric

__all__ = ["baseline_gate", "check_floor", "passed", "row_gates", "value_gate"]

# What rounding may add to a drop.
_SLACK = 1e-12


def check_floor(plan: Plan, metric: Metric) -> None:
    """Refuse a floor under a metric that is better the lower it is.

    Raises:
        UsageError: it is one.
    """
    if plan.fail_under is not None and not metric.higher_is_better:
        raise UsageError(
            f"--fail-under is a floor, and {metric.name} is better the lower it is; use --fail-over of a sweep, the "
            "largest rise."
        )


def row_gates(plan: Plan, rows: Sequence[SweepRow]) -> tuple[Gate, ...]:
    """One gate for each row and each of `fail_over` and `fail_under`."""
    found = []
    for row in rows:
        where = {"method": row.method, "refit": row.refit, "ratio": row.ratio}
        if plan.fail_over is not None:
            ok = row.drop <= plan.fail_over + _SLACK
            found.append(Gate(kind="fail_over", ok=ok, limit=plan.fail_over, found=row.drop, **where))  # type: ignore[arg-type]
        if plan.fail_under is not None:
            found.append(value_gate(plan.fail_under, row.value, **where))  # type: ignore[arg-type]
    return tuple(found)


def value_gate(
    floor: float, value: float, method: str | None = None, refit: str | None = None, ratio: float | None = None
) -> Gate:
    """Whether a value is at least `floor`; one that is not finite is not."""
    ok = value >= floor - _SLACK
    return Gate(kind="fail_under", ok=ok, limit=floor, found=value, method=method, refit=refit, ratio=ratio)


def baseline_gate(fault: str | None) -> Gate:
    """Whether the full model is something to compare with."""
    return Gate(kind="baseline", ok=fault is None, said=fault or "")


def passed(gates: Sequence[Gate]) -> bool | None:
    """Whether all are met; None where there are none."""
    return all(gate.ok for gate in gates) if gates else None
