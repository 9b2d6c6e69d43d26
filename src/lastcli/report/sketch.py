"""A sweep drawn in characters, for a terminal: the metric against the ratio, and what is left of every layer.

Nothing is said by colour alone: lines have letters, the chosen point a sign of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING

from lastcli.report.blocks import Cell, Drawing
from lastcli.report.measures import metric_text
from lastcli.report.sweeps import Variant, label_of, variants
from lastcli.report.text import count, name_text, ratio_text

if TYPE_CHECKING:
    from lastcli.results import SweepResult, SweepRow

__all__ = ["curve_sketch", "layer_sketch"]

_ROWS = 9
_WIDEST, _NARROWEST = 72, 24
# What the last tick and its unit may take behind the curve.
_BEHIND = 10
_BAR, _LONGEST_NAME = 24, 40
# Names of more layers or lines than this fill the screen.
_MOST_LAYERS, _MOST_LINES = 16, len(ascii_uppercase)
_MOST_TICKS, _STEPS = 6, (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)
_POINT, _CHOSEN, _FULL, _INTERVAL = "●", "◆", "┄", "│"


class _Canvas:
    """Characters on a grid; what is put later covers what was there."""

    def __init__(self, width: int):
        self.width = width
        self.cells = [[Cell(" ") for _ in range(width)] for _ in range(_ROWS)]

    def put(self, x: float, y: float, sign: str, tone: str = "") -> None:
        """A sign at shares 0…1 of the width and of the height, from below."""
        column = min(max(round(x * (self.width - 1)), 0), self.width - 1)
        row = min(max(round((1 - y) * (_ROWS - 1)), 0), _ROWS - 1)
        self.cells[row][column] = Cell(sign, tone)


def curve_sketch(result: SweepResult, width: int) -> Drawing | None:
    """The metric against the ratio in at most `width` columns; None where there is no line to draw or no room."""
    found = variants(result)[:_MOST_LINES]
    rows = [row for row in result.rows if math.isfinite(row.value)]
    low, high = _range(result, rows)
    labels = [metric_text(result.metric, value, result.n) for value in (high, (low + high) / 2, low)]
    margin = max(map(len, labels))
    across = min(width - margin - 3 - _BEHIND, _WIDEST)
    if len({row.ratio for row in rows}) < 3 or across < _NARROWEST:
        return None
    most = max(row.ratio for row in rows)
    canvas = _Canvas(across)

    def up(value: float) -> float:
        return (value - low) / (high - low)

    for column in range(across):
        canvas.put(column / (across - 1), up(result.baseline), _FULL, "dim")
    if len(found) == 1:
        _intervals(canvas, rows, most, low, high)
    for place, variant in reversed(list(enumerate(found))):
        for row in rows:
            if (row.method, row.refit) == variant:
                sign = _POINT if len(found) == 1 else ascii_uppercase[place]
                canvas.put(row.ratio / most, up(row.value), sign)
    chosen = result.chosen
    if chosen is not None and math.isfinite(chosen.value):
        canvas.put(chosen.ratio / most, up(chosen.value), _CHOSEN, "good")
    return Drawing(tuple(_framed(canvas, labels, margin, most)) + tuple(_legend(result, found, width)))


def _range(result: SweepResult, rows: Sequence[SweepRow]) -> tuple[float, float]:
    values = [row.value for row in rows] + [result.baseline]
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5 * abs(low) - 0.01, high + 0.5 * abs(high) + 0.01)


def _intervals(canvas: _Canvas, rows: Sequence[SweepRow], most: float, low: float, high: float) -> None:
    for row in rows:
        if row.ci_low is None or row.ci_high is None:
            continue
        ends = [(min(max(end, low), high) - low) / (high - low) * (_ROWS - 1) for end in (row.ci_low, row.ci_high)]
        for step in range(round(ends[0]), round(ends[1]) + 1):
            canvas.put(row.ratio / most, step / (_ROWS - 1), _INTERVAL, "dim")


def _framed(canvas: _Canvas, labels: Sequence[str], margin: int, most: float) -> list[tuple[Cell, ...]]:
    names = {0: labels[0], _ROWS // 2: labels[1], _ROWS - 1: labels[2]}
    lines = [
        (Cell(names.get(number, "").rjust(margin), "dim"), Cell(" │", "dim"), *row)
        for number, row in enumerate(canvas.cells)
    ]
    lines.append((Cell(" " * margin + " └" + "─" * canvas.width, "dim"),))
    ticks = [" "] * (canvas.width + 8)
    step = next((step for step in _STEPS if most / step <= _MOST_TICKS), 1.0)
    for number in range(int(most / step + 1e-9) + 1):
        shown = ratio_text(number * step)
        start = max(round(number * step / most * (canvas.width - 1)) - (len(shown) - 1) // 2, 0)
        ticks[start : start + len(shown)] = shown
    lines.append((Cell(" " * (margin + 2) + "".join(ticks).rstrip() + " pruned", "dim"),))
    return lines


def _legend(result: SweepResult, found: Sequence[Variant], width: int) -> list[tuple[Cell, ...]]:
    parts = [f"{_FULL}{_FULL} full model"]
    if len(found) == 1:
        parts = [f"{_POINT} {label_of(found[0])}", f"{_INTERVAL} 95% interval", *parts]
    else:
        parts = [f"{sign} {label_of(variant)}" for sign, variant in zip(ascii_uppercase, found)] + parts
    if result.chosen is not None:
        parts.append(f"{_CHOSEN} chosen")
    lines, line = [], ""
    for part in parts:
        if line and len(line) + 3 + len(part) > width:
            lines.append(line)
            line = ""
        line += ("   " if line else "") + part
    return [(Cell(text),) for text in [*lines, line]]


def layer_sketch(result: SweepResult, width: int) -> Drawing | None:
    """What the chosen model keeps of every layer, as bars; None where nothing is chosen."""
    row = result.chosen
    if row is None or not 0 < len(row.layers) == len(result.layer_states) <= _MOST_LAYERS:
        return None
    names = [_cut(name_text(name)) for name in result.layer_names] or [f"layer {i}" for i in range(len(row.layers))]
    longest = max(map(len, names))
    counts = [f"{count(kept)} of {count(full)}" for kept, full in zip(row.layers, result.layer_states)]
    bar = min(_BAR, width - longest - max(map(len, counts)) - 4)
    if bar < 4:
        return None
    lines = []
    for name, kept, full, said in zip(names, row.layers, result.layer_states, counts):
        filled = round(bar * kept / max(full, 1))
        lines.append(
            (Cell(name.ljust(longest) + "  "), Cell("█" * filled), Cell("░" * (bar - filled), "dim"), Cell(f"  {said}"))
        )
    return Drawing(tuple(lines))


def _cut(name: str) -> str:
    """The end of a long path, where layers differ."""
    return name if len(name) <= _LONGEST_NAME else "…" + name[-(_LONGEST_NAME - 1) :]
