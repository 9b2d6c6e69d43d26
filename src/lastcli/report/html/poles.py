"""The poles of every layer in the unit circle, before and after."""

from __future__ import annotations

from typing import Any

import numpy as np

from lastcli.report.html.markup import Markup, breakable, element, empty, joined, number
from lastcli.report.html.svg import figure, label, line, picture
from lastcli.report.text import count, name_text
from lastcli.results import Anatomy

__all__ = ["poles_section"]

_SIZE, _MIDDLE, _RADIUS = 240.0, 120.0, 100.0
# Poles further out are drawn at this distance, and the caption says how many they are.
_FURTHEST = 1.15
# Points of one layer that a picture can show; of more, every so many-th.
_MOST_POINTS = 5000


def poles_section(anatomy: Anatomy) -> Markup | None:
    """One circle a layer; None where no layer has poles of its own."""
    if all(layer.poles is None for layer in anatomy.layers):
        return None
    reduced = bool(anatomy.poles_after)
    about = "Eigenvalues λ of every layer in discrete time, of a conjugate pair the stored one; outside the circle a "
    about += "layer is unstable."
    about += " Crosses: the full model. Dots: what is left of it." if reduced else ""
    circles = []
    for i, layer in enumerate(anatomy.layers):
        if layer.poles is not None:
            after = anatomy.poles_after[i] if reduced else None
            circles.append(_circle(layer.name, layer.poles, after))
    return joined([element("p", about, class_="about"), element("div", *circles, class_="multiples")])


def _circle(name: str, before: np.ndarray, after: np.ndarray | None) -> Markup:
    start, end = _MIDDLE - _RADIUS, _MIDDLE + _RADIUS
    parts = [
        element("circle", cx=_MIDDLE, cy=_MIDDLE, r=_RADIUS, class_="circle"),
        line(start, _MIDDLE, end, _MIDDLE, class_="grid"),
        line(_MIDDLE, start, _MIDDLE, end, class_="grid"),
        label(end + 4, _MIDDLE + 4, "1", class_="tick"),
        label(_MIDDLE, start - 5, "i", class_="tick middle"),
    ]
    parts.append(_crosses(before) if after is not None else _dots(before))
    said = [f"{count(before.size)} poles", f"max |λ| {_largest(before)}"]
    if after is not None:
        parts.append(_dots(after))
        said = [f"{count(before.size)} → {count(after.size)} poles", f"max |λ| {_largest(before)} → {_largest(after)}"]
    outside = int((np.abs(before) > _FURTHEST).sum())
    if outside:
        said.append(f"{count(outside)} further out than {_FURTHEST:g}, drawn there")
    if max(before.size, 0 if after is None else after.size) > _MOST_POINTS:
        said.append("evenly thinned out")
    title = f"{name_text(name)}: poles in the unit circle, {', '.join(said)}"
    caption = joined([element("b", breakable(name_text(name))), empty("br"), element("span", ", ".join(said))])
    return figure(picture(_SIZE, _SIZE, title, parts, class_="poles"), caption)


def _largest(poles: np.ndarray) -> str:
    return f"{np.abs(poles).max():.4g}" if poles.size else "–"


def _points(poles: Any) -> list[tuple[str, str]]:
    """Coordinates of the poles, each place once."""
    found = np.asarray(poles)
    found = found[:: max(1, -(-found.size // _MOST_POINTS))]
    size = np.abs(found)
    found = np.where(size > _FURTHEST, found * (_FURTHEST / np.where(size > 0, size, 1.0)), found)
    places = np.round(np.stack([_MIDDLE + _RADIUS * found.real, _MIDDLE - _RADIUS * found.imag], axis=1), 1)
    return [(number(x), number(y)) for x, y in dict.fromkeys(map(tuple, places.tolist()))]


def _dots(poles: Any) -> Markup:
    # a line of no length with round ends is a dot
    return element("path", d="".join(f"M{x} {y}h.01" for x, y in _points(poles)), class_="dots")


def _crosses(poles: Any) -> Markup:
    strokes = (f"M{x} {y}m-2.5 -2.5l5 5m0 -5l-5 5" for x, y in _points(poles))
    return element("path", d="".join(strokes), class_="crosses")
