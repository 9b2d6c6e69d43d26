"""Scales, ticks and markers of the pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lastcli.report.html.markup import Markup, element, joined, number

__all__ = ["COLOURS", "Scale", "figure", "label", "line", "marker", "path", "picture", "ticks"]

# `c0` … `c7` of style.css
COLOURS = 8
_MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M-3.6 -3.6h7.2v7.2h-7.2z",
    "M0 -4.6L4.4 3.4H-4.4z",
    "M0 -5L5 0L0 5L-5 0z",
    "M0 4.6L4.4 -3.4H-4.4z",
    "M-4.4 -1.5h2.9v-2.9h3v2.9h2.9v3h-2.9v2.9h-3v-2.9h-2.9z",
    "M-4.6 -2.6H4.6V2.6H-4.6z",
    "M-2.6 -4.6H2.6V4.6H-2.6z",
)


@dataclass(frozen=True)
class Scale:
    """From values `low`…`high` to coordinates `start`…`end`; `log` where equal factors are equal distances."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of a value; beyond the ends that of the end."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def ticks(low: float, high: float, most: int = 6, log: bool = False) -> list[float]:
    """Round values between `low` and `high`, at most `most` of them."""
    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        step = max(1, math.ceil((last - first + 1) / most))
        powers = [10.0**power for power in range(first, last + 1, step)]
        return powers if len(powers) > 1 else [low, high]
    if not high > low:
        return [low]
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    begin = math.ceil(low / width - 1e-9)
    return [round(width * i, 12) for i in range(begin, math.floor(high / width + 1e-9) + 1)]


def marker(kind: int, x: float, y: float, title: str = "", **attributes: object) -> Markup:
    """One of the shapes at a point, with what a pointer that rests on it shows."""
    named = [element("title", title)] if title else []
    shape = _MARKERS[kind % len(_MARKERS)]
    return element("path", *named, d=shape, transform=f"translate({number(x)} {number(y)})", **attributes)


def path(points: Iterable[tuple[float, float]], closed: bool = False, **attributes: object) -> Markup:
    """A line through points."""
    text = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return element("path", d=f"M{text}{'z' if closed else ''}", **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    """A straight line."""
    return element("path", d=f"M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}", **attributes)


def label(x: float, y: float, words: object, **attributes: object) -> Markup:
    """Text at a point."""
    return element("text", words, x=float(x), y=float(y), **attributes)


def picture(width: float, height: float, title: str, parts: Sequence[Markup], /, **attributes: object) -> Markup:
    """One SVG; `title` is what it shows, for those who do not see it."""
    box = f"0 0 {number(width)} {number(height)}"
    return element("svg", joined(parts), viewBox=box, role="img", aria_label=title, **attributes)


def figure(content: Markup, caption: object = "", **attributes: object) -> Markup:
    """A picture with its caption."""
    said = [element("figcaption", caption)] if caption else []
    return element("figure", content, *said, **attributes)
