"""Reports of the verbs that read or write a model: inspect, score, prune, convert."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.report.blocks import Block, Cell, Column, Grid, Line, grid, notes_lines
from lastcli.report.measures import drop_title
from lastcli.report.text import (
    MOST_PERCENT,
    bytes_text,
    count,
    error_text,
    is_share,
    name_text,
    nats_text,
    peak_text,
    points_text,
    ratio_text,
    relative_text,
    safe_text,
    shrinkage,
    sparkline,
    times_text,
)

if TYPE_CHECKING:
    from lastcli.results import (
        ConvertResult,
        InspectResult,
        LayerInfo,
        LayerScore,
        Measured,
        PruneResult,
        ScoreResult,
        SearchResult,
    )

__all__ = ["convert_blocks", "inspect_blocks", "prune_blocks", "score_blocks"]

HISTOGRAM_BINS = 10
WEAKEST = 3


def inspect_blocks(result: InspectResult) -> list[Block]:
    """Family, sizes, layers and where every option came from."""
    family = f"{name_text(result.family)}{f' ({name_text(result.title)})' if result.title else ''}"
    dtypes = ", ".join(f"{name_text(name)} × {number}" for name, number in result.dtypes.items())
    facts = [
        ("checkpoint", name_text(result.checkpoint)),
        ("container", name_text(result.container)),
        ("family", family),
        ("states", count(result.states)),
        ("state a sequence", "–" if result.state_bytes is None else bytes_text(result.state_bytes)),
        ("multiply-adds a step", count(result.multiply_adds)),
        ("parameters", count(result.parameters)),
        ("size", bytes_text(result.bytes)),
        ("tensors", f"{count(result.tensors)}{f' ({dtypes})' if dtypes else ''}" if result.tensors else "–"),
    ]
    rows = [(Cell(key, "dim"), Cell(value)) for key, value in facts if value != "–"]
    blocks: list[Block] = [Grid((Column("", False), Column("", False)), tuple(rows))]
    layers = [
        (
            name_text(layer.name),
            _states(layer.states, layer.sets),
            count(layer.inputs),
            count(layer.outputs),
            "both" if layer.directions == 2 else "forward",
            Cell(_pole(layer.max_abs_pole), "bad" if _unstable(layer) else ""),
            *(count(layer.inside.get(key)) for key in ("d_inner", "groups", "head_dim", "dt_rank")),
            "–" if "state_bytes" not in layer.inside else bytes_text(layer.inside["state_bytes"]),
            count(layer.parameters),
        )
        for layer in result.layers
    ]
    columns = [
        Column("layer", False),
        Column("states"),
        Column("inputs", spare=2),
        Column("outputs", spare=2),
        Column("scan", False, spare=3),
        Column("max |λ|"),
        Column("d_inner", spare=1),
        Column("groups", spare=1),
        Column("head dim", spare=1),
        Column("dt rank", spare=1),
        Column("state a sequence"),
        Column("parameters", spare=1),
    ]
    blocks.append(grid(columns, layers, "Layers"))
    unstable = [name_text(layer.name) for layer in result.layers if _unstable(layer)]
    if unstable:
        blocks.append(Line(f"Unstable, with a pole on or outside the unit circle: {', '.join(unstable)}.", "bad"))
    if result.config:
        options = [
            (name_text(key), name_text(item.value), Cell(item.source, "mark" if item.source == "assumed" else ""))
            for key, item in result.config.items()
        ]
        blocks.append(
            grid([Column("option", False), Column("value", False), Column("from", False)], options, "Description")
        )
    if result.provenance:
        blocks.append(_provenance(result.provenance))
    return blocks + notes_lines(result.notes)


def _unstable(layer: LayerInfo) -> bool:
    return layer.max_abs_pole is not None and layer.max_abs_pole >= 1


def _provenance(provenance: Mapping[str, Any]) -> Grid:
    rows = [
        (Cell(name_text(key), "dim"), safe_text(value, 60))
        for key, value in provenance.items()
        if isinstance(value, str | int | float)
    ]
    return grid([Column("key", False), Column("value", False)], rows, "Written by last")


def score_blocks(result: ScoreResult) -> list[Block]:
    """What the states of each layer are worth: spread of the scores, and the weakest states."""
    rows = [_score_row(layer) for layer in result.layers]
    columns = [
        Column("layer", False),
        Column("states"),
        Column("max |λ|"),
        Column("median score", spare=3),
        Column("lowest"),
        Column("spread 0 → 1" if _unit(result) else "spread", False, spare=4),
        Column("weakest states", False, spare=1),
    ]
    what = f"Method {name_text(result.method)}"
    if result.criterion:
        what += f" ({name_text(result.criterion)} × {name_text(result.allocation)})"
    if result.compat:
        what += f", compat {name_text(result.compat)}"
    total = sum(layer.states * layer.sets for layer in result.layers)
    table = grid(columns, rows, f"{what}: {count(total)} states of {name_text(result.checkpoint)}")
    return [table, Line("Every state is listed with --json or --csv.", "dim"), *notes_lines(result.notes)]


def _unit(result: ScoreResult) -> bool:
    return all(float(np.max(layer.score, initial=0.0)) <= 1.0 for layer in result.layers)


def _score_row(layer: LayerScore) -> tuple[str, ...]:
    score = np.atleast_2d(np.asarray(layer.score, np.float64))
    flat = score[np.isfinite(score)]
    if flat.size == 0:
        return (name_text(layer.name), _states(layer.states, layer.sets), _pole(layer.max_abs_pole), "–", "–", "", "–")
    top = max(float(flat.max()), 1.0)
    bins = np.histogram(flat, HISTOGRAM_BINS, (0.0, top))[0]
    order = np.argsort(np.where(np.isfinite(score), score, np.inf), axis=None, kind="stable")[:WEAKEST]
    places = [divmod(int(index), score.shape[1]) for index in order]
    weakest = ", ".join(f"{channel}:{state}" if layer.multi else str(state) for channel, state in places)
    return (
        name_text(layer.name),
        _states(layer.states, layer.sets),
        _pole(layer.max_abs_pole),
        error_text(float(np.median(flat))),
        error_text(float(flat.min())),
        sparkline(np.sqrt(bins).tolist()),
        weakest,
    )


def prune_blocks(result: PruneResult) -> list[Block]:
    """Before → after, layer by layer, with what is known about the error."""
    sizes = [
        ("states", result.states_before, result.states_after, count),
        *_decoding_rows(result),
        ("parameters", result.parameters_before, result.parameters_after, count),
        ("size", result.bytes_before, result.bytes_after, bytes_text),
    ]
    rows = [(name, show(before), "→", show(after), shrinkage(before, after)) for name, before, after, show in sizes]
    title = f"{name_text(result.checkpoint)}: method {name_text(result.method)}, refit {name_text(result.refit)}"
    columns = [Column("", False), Column("before"), Column("", False), Column("after"), Column("change", spare=1)]
    blocks: list[Block] = [
        grid(columns, rows, f"{title}, {ratio_text(result.ratio)} of the states, {name_text(result.layout)}")
    ]
    if result.search is not None:
        blocks += _attempts(result.search)
        blocks += _search(result.search)
    if result.measured is not None:
        blocks.append(_measured(result.measured))
    blocks.append(_pruned_layers(result))
    if result.dry_run:
        blocks.append(Line("Dry run: nothing was written.", "mark"))
    elif result.out is not None:
        blocks.append(Line(f"Written: {name_text(result.out)}", "good"))
    if result.recipe is not None:
        blocks.append(Line(f"Repeated by: last prune --recipe {name_text(result.recipe)}"))
    return blocks + notes_lines(result.notes)


def _decoding_rows(result: PruneResult) -> list[tuple[str, int, int, Callable[[Any], str]]]:
    """What a running sequence gains, before what the file does."""
    rows = [
        ("state a sequence", result.state_bytes_before, result.state_bytes_after, bytes_text),
        ("multiply-adds a step", result.multiply_adds_before, result.multiply_adds_after, count),
    ]
    return [(name, a, b, show) for name, a, b, show in rows if a is not None and b is not None]


def _measured(found: Measured) -> Line:
    shown = [_value(found.metric, v) for v in (found.baseline, found.value)]
    lost = f"{_lost(found.metric, found.drop)} {drop_title(found.metric)}"
    text = f"{name_text(found.metric)} {shown[0]} → {shown[1]} ({lost}) on {count(found.n)} examples"
    if found.data:
        text += f" of {name_text(found.data)}"
    if found.max_difference is not None:
        text += f"; outputs differ by {error_text(found.max_difference)} at most"
    return Line(f"{text}.")


def _value(metric: str, value: float) -> str:
    if not math.isfinite(value) or not (is_share(metric) or metric == "fit"):
        return error_text(value)
    return f"{100 * value if is_share(metric) else value:.2f}%"


def _lost(metric: str, drop: float) -> str:
    """Points in two digits, nats in four, or the relative rise, as a factor where percent would be a long row."""
    if not math.isfinite(drop):
        return error_text(drop)
    if metric == "nll":
        return nats_text(drop)
    if is_share(metric) or metric == "fit":
        return f"{100 * drop:.2f}"
    return f"{100 * drop:.2f}%" if abs(drop) < MOST_PERCENT else times_text(drop + 1)


def _pruned_layers(result: PruneResult) -> Grid:
    measured = any(layer.data_error is not None for layer in result.layers)
    rows = [
        (
            name_text(layer.name),
            count(layer.states_before),
            "→",
            _states(layer.states, layer.sets),
            error_text(layer.hinf_error_bound),
            peak_text(layer.hinf_error, layer.hinf_exact),
            relative_text(layer.h2_error),
            *([relative_text(layer.data_error)] if measured else []),
        )
        for layer in result.layers
    ]
    columns = [
        Column("layer", False),
        Column("states"),
        Column("", False),
        Column("kept"),
        Column("H∞ bound", spare=2),
        Column("H∞ error", spare=1),
        Column("H₂ error"),
        *([Column("on data")] if measured else []),
    ]
    return grid(columns, rows, "Layers")


def _attempts(search: SearchResult) -> list[Block]:
    """What `--method best` tried, from the cheapest to the dearest."""
    if not search.attempts:
        return []
    rows = [
        (
            name_text(one.method),
            name_text(one.refit),
            count(one.steps),
            "–" if one.ratio is None else ratio_text(one.ratio),
            "–" if one.drop is None else _lost(search.metric, one.drop).removesuffix("%"),
            f"{one.seconds:.1f}",
            Cell(name_text(one.outcome), "" if one.ratio is None else "good"),
        )
        for one in search.attempts
    ]
    columns = [
        Column("method", False),
        Column("refit", False),
        Column("steps", spare=1),
        Column("pruned"),
        Column(drop_title(search.metric)),
        Column("seconds", spare=2),
        Column("", False),
    ]
    return [grid(columns, rows, "Tried, from the cheapest to the dearest")]


def _search(search: SearchResult) -> list[Block]:
    title = drop_title(search.metric)
    rows = [
        (
            ratio_text(step.ratio),
            count(step.states),
            _value(search.metric, step.value),
            _lost(search.metric, step.drop).removesuffix("%"),
            "–" if step.p_value is None else f"{step.p_value:.3g}",
            Cell(
                ("within" if step.within else "too much") + (", compact" if step.compact else ""),
                "good" if step.within else "bad",
            ),
        )
        for step in search.steps
    ]
    columns = [
        Column("pruned"),
        Column("states"),
        Column(name_text(search.metric)),
        Column("rise (%)" if title == "rise" else title),
        Column("p", spare=1),
        Column("", False),
    ]
    allowed = points_text(search.metric, search.max_drop)
    where = f" of {name_text(search.data)}" if search.data else ""
    search_title = f"Search for the largest ratio within {allowed} on {count(search.n)} examples{where}"
    if search.met and search.drop is not None:
        loss = _lost(search.metric, search.drop) + ("" if title == "rise" else f" {title.removesuffix(' lost')}")
        end = Line(f"The compact model loses {loss}: within the bound.", "good")
    else:
        end = Line(f"No model that was tried stays within {allowed}.", "bad")
    return [grid(columns, rows, search_title), end]


def convert_blocks(result: ConvertResult) -> list[Block]:
    """From which container into which, and what it weighs."""
    way = f"{name_text(result.container_before)} → {name_text(result.container_after)}"
    if result.family_after and result.family_after != result.family:
        way += f", {name_text(result.family)} → {name_text(result.family_after)}"
    sizes = f"{bytes_text(result.bytes_before)} → {bytes_text(result.bytes_after)}"
    return [
        Line(f"{way}: {count(result.tensors)} tensors, {sizes}"),
        Line(f"Written: {name_text(result.out)}", "good"),
        *notes_lines(result.notes),
    ]


def _states(states: int, sets: int) -> str:
    return count(states) if sets == 1 else f"{sets} × {states}"


def _pole(value: float | None) -> str:
    return "–" if value is None else f"{value:.6f}" if value < 2 else f"{value:.4g}"
