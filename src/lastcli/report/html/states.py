"""Which states of which layer stay at every ratio: one small map a layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from lastcli.report.html.markup import Markup, breakable, element, joined, number
from lastcli.report.html.svg import figure, label, picture
from lastcli.report.text import name_text, ratio_text
from lastcli.results import Anatomy, LayerAnatomy, SweepResult, SweepRow

__all__ = ["states_section"]

_LEFT, _WIDTH, _ROW = 44.0, 360.0, 18.0
# Shares are drawn in so many steps.
_LEVELS = 10


def states_section(result: SweepResult, anatomy: Anatomy, variant: tuple[str, str]) -> Markup | None:
    """The maps of one method and refit; None where no single state is kept."""
    chosen = [
        (row, kept)
        for row, kept in zip(result.rows, anatomy.kept)
        if (row.method, row.refit) == variant and len(kept) == len(anatomy.layers)
    ]
    rows = sorted(chosen, key=lambda pair: pair[0].ratio)
    if not rows:
        return None
    ranked = any(layer.sets > 1 for layer in anatomy.layers)
    about = "Filled: the state stays at this ratio. "
    about += (
        "Channels have states of their own: each channel's are put in the order of their energy, the strongest first, "
        "and the shade is the share of the channels that keep the state."
        if ranked
        else "States stand in the order of the checkpoint."
    )
    maps = [_map(layer, [(row, kept[i]) for row, kept in rows]) for i, layer in enumerate(anatomy.layers)]
    return joined([element("p", about, class_="about"), element("div", *maps, class_="wide-multiples")])


def _map(layer: LayerAnatomy, rows: Sequence[tuple[SweepRow, np.ndarray]]) -> Markup:
    parts = []
    cell = _WIDTH / max(layer.states, 1)
    outlines: dict[int, list[str]] = {}
    for place, (row, kept) in enumerate(rows):
        y = _ROW * place
        parts.append(label(_LEFT - 6, y + _ROW - 5, ratio_text(row.ratio), class_="tick end"))
        for level, start, length in _runs(_shares(layer, kept)):
            box = f"M{number(_LEFT + start * cell)} {number(y + 1)}h{number(length * cell)}v{number(_ROW - 2)}"
            outlines.setdefault(level, []).append(f"{box}h-{number(length * cell)}z")
    for level, boxes in sorted(outlines.items()):
        strength = None if level in (0, _LEVELS) else f"opacity:{level / _LEVELS:g}"
        shade = "gone" if level == 0 else "kept"
        parts.append(element("path", d="".join(boxes), class_=shade, style=strength))
    height = _ROW * len(rows) + 2
    title = f"{name_text(layer.name)}: which of its {layer.states} states stay at each ratio"
    return figure(picture(_LEFT + _WIDTH + 4, height, title, parts, class_="map"), breakable(name_text(layer.name)))


def _shares(layer: LayerAnatomy, kept: np.ndarray) -> np.ndarray:
    """The share (states,) of the index sets that keep each state; ranked by energy where there are several sets."""
    stays = np.zeros((layer.sets, layer.states), bool)
    np.put_along_axis(stays, np.asarray(kept).reshape(layer.sets, -1), True, axis=1)
    if layer.sets > 1 and layer.energy is not None:
        order = np.argsort(-np.nan_to_num(np.asarray(layer.energy)), axis=1, kind="stable")
        stays = np.take_along_axis(stays, order, axis=1)
    shares: np.ndarray = stays.mean(axis=0)
    return shares


def _runs(shares: np.ndarray) -> list[tuple[int, int, int]]:
    """(level, first state, how many) of neighbours with one level; only all is full and only none is empty."""
    levels = np.rint(shares * _LEVELS).astype(int)
    levels = np.where(shares > 0, np.clip(levels, 1, _LEVELS - 1), 0)
    levels = np.where(shares >= 1, _LEVELS, levels)
    runs, place = [], 0
    for level, group in groupby(levels.tolist()):
        length = len(list(group))
        runs.append((level, place, length))
        place += length
    return runs
