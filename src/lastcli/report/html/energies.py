"""Energies of the states of every layer, from the strongest to the weakest; what goes is paler."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lastcli.report.html.markup import Markup, breakable, element, empty, joined, number
from lastcli.report.html.svg import Scale, figure, label, line, picture, ticks
from lastcli.report.text import count, name_text
from lastcli.results import Anatomy, LayerAnatomy

__all__ = ["energies_section"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 256.0, 10.0, 130.0
_HEIGHT = 142.0
# Bars of one layer; of more states, evenly many are drawn.
_MOST_BARS = 200
# Energies below the largest of all layers times this lie on the axis.
_LEAST = 1e-12


def energies_section(anatomy: Anatomy) -> Markup | None:
    """One picture a layer, all on one logarithmic scale; None where there are no energies."""
    layers = [layer for layer in anatomy.layers if layer.energy is not None]
    scale = _scale([np.asarray(layer.energy) for layer in layers])
    if scale is None:
        return None
    kept = anatomy.kept[anatomy.shown] if anatomy.shown is not None and anatomy.kept else ()
    about = (
        f"Energy of every state under the method {name_text(anatomy.energy_of)}, in descending order, on one "
        "logarithmic scale for all layers."
    )
    about += " Pale: what goes at the ratio shown." if kept else ""
    charts = [
        _chart(layer, scale, kept[i] if kept else None)
        for i, layer in enumerate(anatomy.layers)
        if layer.energy is not None
    ]
    return joined([element("p", about, class_="about"), element("div", *charts, class_="multiples")])


def _scale(energies: Sequence[np.ndarray]) -> Scale | None:
    values: np.ndarray = np.concatenate([energy.reshape(-1) for energy in energies]) if energies else np.empty(0)
    positive = values[np.isfinite(values) & (values > 0)]
    if not positive.size:
        return None
    high = float(positive.max())
    low = max(float(positive.min()), high * _LEAST)
    # whole powers of ten, so that both ends are ticks
    return Scale(10.0 ** np.floor(np.log10(low)), 10.0 ** np.ceil(np.log10(high) + 1e-9), _BOTTOM, _TOP, log=True)


def _chart(layer: LayerAnatomy, scale: Scale, kept: np.ndarray | None) -> Markup:
    energy: np.ndarray = np.asarray(layer.energy, np.float64)
    stays: np.ndarray = np.ones(energy.shape, bool)
    if kept is not None:
        stays[:] = False
        np.put_along_axis(stays, np.asarray(kept).reshape(layer.sets, -1), True, axis=1)
    flat, stays = np.where(np.isnan(energy), 0.0, energy).reshape(-1), stays.reshape(-1)
    order = np.argsort(-flat, kind="stable")
    shown = order[np.unique(np.linspace(0, order.size - 1, min(order.size, _MOST_BARS)).astype(int))]
    width = (_RIGHT - _LEFT) / max(len(shown), 1)
    boxes: dict[bool, list[str]] = {True: [], False: []}
    for place, state in enumerate(shown.tolist()):
        y = scale(float(flat[state])) if np.isfinite(flat[state]) else _TOP
        tall = max(_BOTTOM - y, 0.5)
        x = _LEFT + place * width
        wide = width * (0.8 if width > 2 else 1)
        boxes[bool(stays[state])].append(f"M{number(x)} {number(_BOTTOM)}v-{number(tall)}h{number(wide)}V{_BOTTOM:g}z")
    parts = []
    for value in ticks(scale.low, scale.high, 4, log=True):
        parts.append(line(_LEFT, scale(value), _RIGHT, scale(value), class_="grid"))
        parts.append(label(_LEFT - 6, scale(value) + 4, _power(value), class_="tick end"))
    parts += [
        element("path", d="".join(found), class_="bar" if stay else "bar pale")
        for stay, found in boxes.items()
        if found
    ]
    parts.append(line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, class_="axis"))
    said = f"{count(flat.size)} states"
    if kept is not None:
        said += f", {count(int(stays.sum()))} stay"
    unbounded = int((~np.isfinite(flat)).sum())
    if unbounded:
        said += f", {count(unbounded)} without a finite energy"
    caption = joined([element("b", breakable(name_text(layer.name))), empty("br"), element("span", said)])
    return figure(
        picture(_RIGHT + 4, _HEIGHT, f"{name_text(layer.name)}: energies of {said}", parts, class_="energies"), caption
    )


def _power(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
