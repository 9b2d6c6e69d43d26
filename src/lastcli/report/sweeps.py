"""The report of a sweep: the metric against the ratio, one table for one method, methods side by side for several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lastcli.report.blocks import Block, Cell, Column, Grid, Line, grid, notes_lines
from lastcli.report.measures import certificates, drop_text, drop_title, interval_text, metric_text
from lastcli.report.published import PublishedColumn
from lastcli.report.text import count, error_text, name_text, points_text, ratio_text, relative_text, sparkline

if TYPE_CHECKING:
    from lastcli.results import SweepResult, SweepRow

__all__ = ["Variant", "best_rows", "label_of", "profile", "sweep_blocks", "variants"]

Variant = tuple[str, str]

BEST, CHOSEN = "★", "◀"
# Beyond this many layers their counts become bars.
MOST_COUNTS = 8
# Widths of the side-by-side table: the columns before the methods, and the least that one method takes.
FIXED_WIDTH, VARIANT_WIDTH = 26, 14


def variants(result: SweepResult) -> list[Variant]:
    """The (method, refit) pairs in the order in which they first appear."""
    return list(dict.fromkeys((row.method, row.refit) for row in result.rows))


def best_rows(result: SweepResult) -> set[int]:
    """Positions of the rows that are best at their ratio; of all that tie, none where every method ties."""
    best: set[int] = set()
    for ratio in dict.fromkeys(row.ratio for row in result.rows):
        here = [(i, row.value) for i, row in enumerate(result.rows) if row.ratio == ratio and row.value == row.value]
        if not here:
            continue
        choose = max if result.higher_is_better else min
        top = choose(value for _, value in here)
        winners = [i for i, value in here if value == top]
        if len(winners) < len(here):
            best.update(winners)
    return best


def profile(layers: Sequence[int], before: Sequence[int]) -> str:
    """States kept in each layer: counts for a few layers, bars against the full count for many."""
    if not layers:
        return "–"
    if len(layers) <= MOST_COUNTS:
        width = max((len(str(number)) for number in before), default=1)
        return " ".join(str(number).rjust(width) for number in layers)
    full = before if len(before) == len(layers) else [max(layers)] * len(layers)
    return sparkline([kept / max(number, 1) for kept, number in zip(layers, full)], 1.0)


def sweep_blocks(result: SweepResult, width: int | None = None) -> list[Block]:
    """The tables of a sweep; `width` is the terminal's, None where there is none."""
    data = f" of {name_text(result.data)}" if result.data else ""
    compat = f", compat {name_text(result.compat)}" if result.compat else ""
    examples = f"{count(result.n)} {'example' if result.n == 1 else 'examples'}"
    title = f"{name_text(result.checkpoint)}: {name_text(result.metric)} on {examples}{data}{compat}"
    found = variants(result)
    published = PublishedColumn(result, found)
    if len(found) <= 1:
        blocks: list[Block] = [_one(result, title, found[0] if found else None, published)]
    else:
        tables = _fitting(found, width, published.width)
        blocks = [_several(result, "" if i else title, shown, published) for i, shown in enumerate(tables)]
        blocks += _legend(result)
    blocks += published.lines
    blocks += _at_most(result)
    blocks += _chosen(result, several=len(found) > 1)
    if result.passed is not None:
        blocks.append(_gates(result))
    return blocks + notes_lines(result.notes)


def _at_most(result: SweepResult) -> list[Block]:
    """What the states are of the model: no pruning wins more than that."""
    if not result.parameters or result.state_parameters is None:
        return []
    shares = [("parameters", result.state_parameters / result.parameters)]
    if result.multiply_adds and result.state_multiply_adds is not None:
        shares.append(("multiply-adds of a step", result.state_multiply_adds / result.multiply_adds))
    whole = " and ".join(f"{100 * share:.1f}% of the {what}" for what, share in shares)
    half = " and ".join(f"{50 * share:.1f}%" for _, share in shares)
    return [Line(f"All states are {whole}, half of them {half}: no more can be won.", "dim")]


def _gates(result: SweepResult) -> Line:
    passed, failed = [], []
    if result.fail_over is not None:
        allowed = points_text(result.metric, result.fail_over)
        passed.append(f"no ratio loses more than {allowed}")
        failed += [f"a ratio loses more than {allowed}"] * _missed(result, "fail_over")
    if result.fail_under is not None:
        floor = metric_text(result.metric, result.fail_under, result.n)
        passed.append(f"none falls below {floor}" if passed else f"no ratio falls below {floor}")
        failed += [f"a ratio falls below {floor}"] * _missed(result, "fail_under")
    if result.baseline_fault is not None:
        return Line("Gate FAILED: the full model is nothing to compare with; the reason is below.", "bad")
    if failed:
        return Line(f"Gate FAILED: {' and '.join(failed)}.", "bad")
    return Line(f"Gate passed: {' and '.join(passed)}.", "good")


def _missed(result: SweepResult, kind: str) -> bool:
    own = [gate for gate in result.gates if gate.kind == kind]
    return not result.passed and (not own or any(not gate.ok for gate in own))


def label_of(variant: Variant) -> str:
    """How a method and its refit are named in tables."""
    method, refit = variant
    return name_text(method) if refit == "none" else f"{name_text(method)} + {name_text(refit)}"


def _fitting(found: Sequence[Variant], width: int | None, published: int) -> list[list[Variant]]:
    """The variants in as few tables as the width allows; `published` is what that column takes of it."""
    tables: list[list[Variant]] = [[]]
    fixed = FIXED_WIDTH + (published + 2 if published else 0)
    used = fixed
    for variant in found:
        needed = max(len(label_of(variant)), VARIANT_WIDTH) + 2
        if tables[-1] and width is not None and used + needed > width:
            tables.append([])
            used = fixed
        tables[-1].append(variant)
        used += needed
    return tables


def _one(result: SweepResult, title: str, variant: Variant | None, published: PublishedColumn) -> Grid:
    metric, n = result.metric, result.n
    columns = [
        Column("pruned"),
        Column("states"),
        Column("params", spare=3),
        Column(name_text(metric)),
        Column(published.title),
        Column("95% interval", spare=1),
        Column(drop_title(metric)),
        Column("p", spare=4),
        Column("max diff", spare=5),
        Column("H₂ error", spare=5),
        Column("by layer", False, spare=2),
        Column("", False),
    ]
    baseline: list[Cell | str] = [
        "full",
        count(result.states),
        count(result.parameters),
        metric_text(metric, result.baseline, n),
        published.full,
        interval_text(metric, *result.baseline_ci, n),
        "–",
        "–",
        "–",
        "–",
        profile(result.layer_states, result.layer_states),
        "",
    ]
    rows = [baseline] + [_row(result, row, published) for row in result.rows if not _is_baseline(result, row)]
    method = f", {label_of(variant)}" if variant else ""
    return grid(columns, rows, title + method, rule_after=(0,))


def _is_baseline(result: SweepResult, row: SweepRow) -> bool:
    return row.ratio == 0 and row.states == result.states and row.value == result.baseline


def _row(result: SweepResult, row: SweepRow, published: PublishedColumn) -> list[Cell | str]:
    errors = [layer.h2_error for layer in row.certificates if layer.h2_error is not None]
    chosen = row == result.chosen
    tone = "good" if chosen else ""
    return [
        Cell(ratio_text(row.ratio), tone),
        count(row.states),
        count(row.parameters),
        Cell(metric_text(result.metric, row.value, result.n), tone),
        published.cell(row.ratio),
        interval_text(result.metric, row.ci_low, row.ci_high, result.n),
        drop_text(result.metric, row.drop, result.n),
        "–" if row.p_value is None else f"{row.p_value:.2g}",
        error_text(row.max_difference),
        relative_text(max(errors, default=None)),
        profile(row.layers, result.layer_states),
        Cell(CHOSEN if chosen else "", tone),
    ]


def _several(result: SweepResult, title: str, shown: Sequence[Variant], published: PublishedColumn) -> Grid:
    metric, n, best = result.metric, result.n, best_rows(result)
    columns = [Column("pruned"), Column("states"), Column("params", spare=1)]
    columns += [Column(label_of(variant)) for variant in shown]
    columns.append(Column(published.title))
    first: list[Cell | str] = ["full", count(result.states), count(result.parameters)]
    rows: list[list[Cell | str]] = [first + [metric_text(metric, result.baseline, n)] * len(shown) + [published.full]]
    for ratio in dict.fromkeys(row.ratio for row in result.rows):
        here = [(i, row) for i, row in enumerate(result.rows) if row.ratio == ratio]
        if all(_is_baseline(result, row) for _, row in here):
            continue
        line: list[Cell | str] = [
            ratio_text(ratio),
            _span([row.states for _, row in here]),
            _span([row.parameters for _, row in here if row.parameters is not None]),
        ]
        for variant in shown:
            cells = [_cell(result, row, i in best) for i, row in here if (row.method, row.refit) == variant]
            line.append(cells[0] if cells else "–")
        line.append(published.cell(ratio))
        rows.append(line)
    return grid(columns, rows, title, rule_after=(0,))


def _cell(result: SweepResult, row: SweepRow, best: bool) -> Cell:
    chosen = row == result.chosen
    text = f"{metric_text(result.metric, row.value, result.n)} ({drop_text(result.metric, row.drop, result.n)})"
    marks = (BEST if best else " ") + (CHOSEN if chosen else " ")
    return Cell(text + marks, "good" if chosen else "mark" if best else "")


def _span(numbers: Sequence[int]) -> str:
    if not numbers:
        return "–"
    low, high = min(numbers), max(numbers)
    return count(low) if low == high else f"{count(low)} – {count(high)}"


def _legend(result: SweepResult) -> list[Block]:
    what = {"rise": "relative rise"}.get(drop_title(result.metric), drop_title(result.metric))
    text = f"In brackets: {what}. {BEST} best at its ratio"
    text += f", {CHOSEN} chosen." if result.chosen is not None else "."
    interval = interval_text(result.metric, *result.baseline_ci, result.n)
    if interval != "–":
        text += f" 95% interval of the full model: {interval}; of every row with --json or --csv."
    return [Line(text, "dim")]


def _chosen(result: SweepResult, several: bool) -> list[Block]:
    row = result.chosen
    if row is None:
        if result.max_drop is None:
            return []
        if result.baseline_fault is not None:
            return [Line("Nothing is chosen: the full model is nothing to compare with; the reason is below.", "bad")]
        return [Line(f"No ratio of this sweep stays within {points_text(result.metric, result.max_drop)}.", "bad")]
    parts = [f"{CHOSEN} Chosen: {ratio_text(row.ratio)}"]
    if several:
        parts.append(f"with {label_of((row.method, row.refit))}")
    within = (
        "" if result.max_drop is None else f", the largest ratio within {points_text(result.metric, result.max_drop)}"
    )
    value = metric_text(result.metric, row.value, result.n)
    parts.append(f"({count(row.states)} of {count(result.states)} states, {name_text(result.metric)} {value}{within}).")
    blocks: list[Block] = [Line(" ".join(parts), "good")]
    if row.certificates:
        blocks.append(certificates(row.certificates, "Layers of the chosen model"))
    elif several and row.layers:
        blocks.append(Line(f"States by layer: {profile(row.layers, result.layer_states)}", "dim"))
    return blocks
