"""Parameters, bytes, multiply-adds and state bytes, before and after."""

from __future__ import annotations

from collections.abc import Sequence

from lastcli.report.blocks import Column, Grid, grid
from lastcli.report.sweeps import label_of, variants
from lastcli.report.text import bytes_text, count, ratio_text
from lastcli.results import Anatomy, Costs, SweepResult

__all__ = ["costs_grid", "scope"]


def scope(costs: Costs) -> str:
    """What a step is counted of."""
    return "of the whole model" if costs.whole else "of the state space layers"


def costs_grid(result: SweepResult, anatomy: Anatomy) -> Grid | None:
    """One row for each row of the sweep; None where nothing was counted."""
    before = anatomy.before
    if before is None or not anatomy.costs:
        return None
    several = len(variants(result)) > 1
    columns = [
        *([Column("method", False)] if several else []),
        Column("pruned"),
        Column("states"),
        Column("parameters"),
        Column("size"),
        Column("state a sequence"),
        Column("multiply-adds a step"),
    ]
    full = _row("full", result.states, result.parameters, before)
    rows = [["–", *full] if several else full]
    for row, costs in zip(result.rows, anatomy.costs):
        cells = _row(ratio_text(row.ratio), row.states, row.parameters, costs)
        rows.append([label_of((row.method, row.refit)), *cells] if several else cells)
    return grid(columns, rows, rule_after=(0,))


def _row(name: str, states: int | None, parameters: int | None, costs: Costs) -> Sequence[str]:
    state = "–" if costs.state_bytes is None else bytes_text(costs.state_bytes)
    return [name, count(states), count(parameters), bytes_text(costs.bytes), state, count(costs.multiply_adds)]
