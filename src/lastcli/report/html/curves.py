"""The metric against the ratio: a line for each method and refit, with intervals and the chosen point."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lastcli.report.html.markup import Markup, element, joined
from lastcli.report.html.svg import COLOURS, Scale, figure, label, line, marker, path, picture, ticks
from lastcli.report.measures import drop_text, drop_title, interval_text, metric_text
from lastcli.report.sweeps import Variant, label_of, variants
from lastcli.report.text import count, name_text, ratio_text
from lastcli.results import SweepResult, SweepRow

__all__ = ["curves_section"]

_WIDTH, _HEIGHT = 720.0, 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 700.0, 16.0, 340.0
# With more lines than this bands lie over each other; intervals are then drawn as bars.
_MOST_BANDS = 3
# Errors that span more than this are drawn on a logarithmic scale.
_LOG_FROM = 50.0


def curves_section(result: SweepResult) -> Markup:
    """The picture and its legend."""
    found = variants(result)
    metric = name_text(result.metric)
    title = f"{metric} against the share of pruned states, {len(found)} {'line' if len(found) == 1 else 'lines'}"
    drawing = figure(picture(_WIDTH, _HEIGHT, title, _parts(result, found), class_="chart"))
    said = "Shaded" if len(found) <= _MOST_BANDS else "Bars"
    about = f"{said}: 95% intervals. Dashed: the full model."
    if result.max_drop is not None:
        about += " Dotted: the largest accepted loss." if _floor(result) is not None else ""
        about += " Ring: the chosen point." if result.chosen is not None else ""
    return joined([drawing, _legend(found), element("p", about, class_="about")])


def _parts(result: SweepResult, found: Sequence[Variant]) -> list[Markup]:
    rows = list(result.rows)
    across = Scale(0.0, max([row.ratio for row in rows] + [0.05]), _LEFT, _RIGHT)
    up = _vertical(result)
    parts = [*_grid(result, across, up), *_references(result, up)]
    for index, variant in enumerate(found):
        own = sorted((r for r in rows if (r.method, r.refit) == variant), key=lambda row: row.ratio)
        parts += _intervals(own, index, len(found), across, up)
    for index, variant in enumerate(found):
        own = sorted((r for r in rows if (r.method, r.refit) == variant), key=lambda row: row.ratio)
        parts += _line(result, own, index, across, up)
    return [*parts, *_chosen(result, across, up)]


def _vertical(result: SweepResult) -> Scale:
    values = _finite([result.baseline, *(row.value for row in result.rows)])
    low, high = min(values, default=0.0), max(values, default=1.0)
    if not result.higher_is_better and low > 0 and high / low > _LOG_FROM:
        # intervals may reach down to zero, which has no place here; they end at the axis
        return Scale(low / 1.2, high * 1.2, _BOTTOM, _TOP, log=True)
    ends = _finite([*result.baseline_ci, *(end for row in result.rows for end in (row.ci_low, row.ci_high))])
    low, high = min([low, *ends]), max([high, *ends])
    spare = 0.04 * (high - low) or 0.05 * abs(high) or 0.05
    low, high = low - spare, high + spare
    if result.metric == "accuracy":
        low, high = max(low, 0.0), min(high, 1.0)
    return Scale(low, high, _BOTTOM, _TOP)


def _finite(values: Sequence[float | None]) -> list[float]:
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def _grid(result: SweepResult, across: Scale, up: Scale) -> list[Markup]:
    parts = []
    for value in ticks(up.low, up.high, 6, up.log):
        y = up(value)
        shown = f"{100 * value:g}%" if result.metric == "accuracy" else f"{value:.4g}"
        parts.append(line(_LEFT, y, _RIGHT, y, class_="grid"))
        parts.append(label(_LEFT - 8, y + 4, shown, class_="tick end"))
    for value in ticks(0.0, across.high, 10):
        x = across(value)
        parts.append(line(x, _BOTTOM, x, _BOTTOM + 5, class_="axis"))
        parts.append(label(x, _BOTTOM + 21, ratio_text(value), class_="tick middle"))
    parts.append(line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, class_="axis"))
    parts.append(label((_LEFT + _RIGHT) / 2, _HEIGHT - 10, "states pruned", class_="name middle"))
    turned = f"translate(16 {(_TOP + _BOTTOM) / 2:g}) rotate(-90)"
    parts.append(element("text", name_text(result.metric), transform=turned, class_="name middle"))
    return parts


def _references(result: SweepResult, up: Scale) -> list[Markup]:
    parts = [line(_LEFT, up(result.baseline), _RIGHT, up(result.baseline), class_="full")]
    floor = _floor(result)
    if floor is not None:
        parts.append(line(_LEFT, up(floor), _RIGHT, up(floor), class_="allowed"))
    return parts


def _floor(result: SweepResult) -> float | None:
    """The value at the largest accepted loss; None where there is none."""
    if result.max_drop is None:
        return None
    if result.metric == "accuracy":
        return result.baseline - result.max_drop
    return None if result.higher_is_better else result.baseline * (1 + result.max_drop)


def _intervals(rows: Sequence[SweepRow], index: int, lines: int, across: Scale, up: Scale) -> list[Markup]:
    known = [(across(row.ratio), up(row.ci_low), up(row.ci_high)) for row in rows if _interval(row)]  # type: ignore[arg-type]
    colour = f"c{index % COLOURS}"
    if lines > _MOST_BANDS or len(known) < 2:
        return [line(x, low, x, high, class_=f"whisker {colour}") for x, low, high in known]
    around = [(x, low) for x, low, _ in known] + [(x, high) for x, _, high in reversed(known)]
    return [path(around, closed=True, class_=f"band {colour}")]


def _interval(row: SweepRow) -> bool:
    return all(end is not None and math.isfinite(end) for end in (row.ci_low, row.ci_high))


def _line(result: SweepResult, rows: Sequence[SweepRow], index: int, across: Scale, up: Scale) -> list[Markup]:
    finite = [row for row in rows if math.isfinite(row.value)]
    points = [(across(row.ratio), up(row.value)) for row in finite]
    colour = f"c{index % COLOURS}{' second' if index >= COLOURS else ''}"
    parts = [path(points, class_=f"curve {colour}")] if len(points) > 1 else []
    for row, (x, y) in zip(finite, points):
        parts.append(marker(index, x, y, _said(result, row), class_=f"point {colour}"))
    return parts


def _said(result: SweepResult, row: SweepRow) -> str:
    interval = interval_text(result.metric, row.ci_low, row.ci_high, result.n)
    between = "" if interval == "–" else f" (95% interval {interval})"
    return (
        f"{label_of((row.method, row.refit))}, {ratio_text(row.ratio)} pruned: "
        f"{metric_text(result.metric, row.value, result.n)}{between}, {drop_title(result.metric)} "
        f"{drop_text(result.metric, row.drop, result.n)}, {count(row.states)} states"
    )


def _chosen(result: SweepResult, across: Scale, up: Scale) -> list[Markup]:
    row = result.chosen
    if row is None or not math.isfinite(row.value):
        return []
    x, y = across(row.ratio), up(row.value)
    ring = element("circle", element("title", _said(result, row)), cx=x, cy=y, r=10.0, class_="ring")
    right = x > (_LEFT + _RIGHT) / 2
    below = y < (_TOP + _BOTTOM) / 2
    where = {"class_": "chosen end" if right else "chosen"}
    words = f"chosen: {ratio_text(row.ratio)}"
    return [ring, label(x + (6 if right else -6), y + (28 if below else -18), words, **where)]


def _legend(found: Sequence[Variant]) -> Markup:
    entries = []
    for index, variant in enumerate(found):
        colour = f"c{index % COLOURS}{' second' if index >= COLOURS else ''}"
        key = [line(0, 8, 28, 8, class_=f"curve {colour}"), marker(index, 14, 8, class_=f"point {colour}")]
        entries.append(
            element("li", picture(28, 16, "", key, width=28, height=16, aria_hidden="true"), label_of(variant))
        )
    return element("ul", *entries, class_="legend")
