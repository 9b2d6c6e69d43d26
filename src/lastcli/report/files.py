"""Results as JSON, CSV and Markdown. CSV and JSON hold plain numbers; Markdown holds what the terminal shows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.report.blocks import Block, Grid, Line
from lastcli.report.text import escaped
from lastcli.results import plain

if TYPE_CHECKING:
    from lastcli.results import InspectResult, PruneResult, RecipeShowResult, Result, ScoreResult, SweepResult

__all__ = ["as_csv", "as_json", "as_markdown", "markdown_text"]

_ESCAPED = str.maketrans({char: "\\" + char for char in "\\|`*_[]<>#"})


def as_json(result: Result) -> str:
    """The result's document as one line-broken JSON text; ASCII, finite numbers only."""
    return json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n"


def as_csv(result: Result) -> str:
    """The result's rows: states of a score, rows of a sweep, layers of an inspect or prune, checks of a verify."""
    rows = [{key: _safe(value) for key, value in row.items()} for row in _rows(result)]
    head = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _safe(value: Any) -> Any:
    """Text from files as the table shows it, but whole: a CSV is read on terminals too."""
    return escaped(value) if isinstance(value, str) else value


def _rows(result: Result) -> Iterable[Mapping[str, Any]]:
    makers: dict[str, Callable[[Any], Iterable[Mapping[str, Any]]]] = {
        "score": _score_rows,
        "sweep": lambda result: [_sweep_row(result, index) for index in range(len(result.rows))],
        "inspect": _layer_rows,
        "prune": _layer_rows,
        "recipe-show": _plan_rows,
        "recipe-check": lambda result: [
            {"recipe": one.recipe} | plain(problem) for one in result.recipes for problem in one.problems
        ],
        "verify": lambda result: [plain(check) for check in result.checks],
        "bench": lambda result: [{"model": name} | plain(getattr(result, name)) for name in ("original", "pruned")],
    }
    return makers.get(result.command, lambda result: [_flat(result.to_json())])(result)


def _layer_rows(result: InspectResult | PruneResult) -> Iterable[Mapping[str, Any]]:
    return [_flat(plain(layer)) for layer in result.layers]


def _plan_rows(result: RecipeShowResult) -> Iterable[Mapping[str, Any]]:
    parts = (("option", result.options), ("model", result.model))
    return [_flat({"of": of, "key": key, **plain(one)}) for of, values in parts for key, one in values.items()]


def _score_rows(result: ScoreResult) -> Iterable[Mapping[str, Any]]:
    for layer in result.layers:
        energy, score = np.atleast_2d(np.asarray(layer.energy)), np.atleast_2d(np.asarray(layer.score))
        for channel, state in np.ndindex(score.shape):
            place = {"layer": layer.name} | ({"channel": channel} if layer.multi else {}) | {"state": state}
            yield place | {"energy": plain(energy[channel, state]), "score": plain(score[channel, state])}


def _sweep_row(result: SweepResult, index: int) -> Mapping[str, Any]:
    row = result.rows[index]
    document = plain(row)
    layers = document.pop("certificates")
    for key in ("hinf_error_bound", "hinf_error", "h2_error"):
        found = [layer[key] for layer in layers if layer[key] is not None]
        document[f"max_{key}"] = max(found) if found else None
    published = document.pop("published")
    extra = {"metric": result.metric, "baseline": plain(result.baseline), "n": result.n}
    extra |= {"chosen": int(row == result.chosen)}
    return _flat(document) | extra | ({} if result.published is None else {"published": published})


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of numbers as one cell, "20 11 25 9", channels parted by "/"; other nested values as JSON."""
    return {key: _cell(value) for key, value in document.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        if all(isinstance(item, int | float) for item in value):
            return " ".join(map(str, value))
        if all(isinstance(item, list) for item in value):
            return "/".join(str(_cell(item)) for item in value)
        return "; ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else value


def as_markdown(blocks: Sequence[Block]) -> str:
    """The blocks as GitHub-flavoured Markdown."""
    shown = (block for block in blocks if isinstance(block, Grid | Line))
    parts = [_markdown_grid(block) if isinstance(block, Grid) else _markdown_line(block) for block in shown]
    return "\n\n".join(parts) + "\n"


def markdown_text(text: str) -> str:
    """Text in which Markdown sees no markup."""
    return text.translate(_ESCAPED)


def _markdown_line(line: Line) -> str:
    text = line.text.translate(_ESCAPED)
    return f"**{text}**" if line.tone in ("good", "bad", "mark") else text


def _markdown_grid(grid: Grid) -> str:
    rows = [[column.title.translate(_ESCAPED) for column in grid.columns]]
    rows += [[cell.text.strip().translate(_ESCAPED) for cell in row] for row in grid.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(grid.columns))]
    widths = [max(width, 3) for width in widths]
    rule = ["-" * (width - 1) + ":" if column.right else "-" * width for width, column in zip(widths, grid.columns)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(cells, widths, grid.columns)
        )
        return "| " + " | ".join(padded) + " |"

    table = "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])
    return f"**{grid.title.translate(_ESCAPED)}**\n\n{table}" if grid.title else table
