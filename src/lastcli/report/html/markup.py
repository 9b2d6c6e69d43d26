"""Elements of HTML and SVG. Text and attributes are escaped here and nowhere else, so that no name becomes markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from lastcli.report.text import escaped

__all__ = ["Markup", "breakable", "element", "empty", "joined", "number", "text"]


class Markup(str):
    """Text that is markup already: made by `element` and `text` alone."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Any text as markup that shows it; control characters and changes of direction as escapes."""
    raw = str(value)
    return Markup(html.escape("\n".join(escaped(line) for line in raw.split("\n"))))


def joined(parts: Iterable[Markup]) -> Markup:
    """Markup after markup."""
    return Markup("".join(parts))


def breakable(name: str) -> Markup:
    """A path that may be broken behind its slashes and dots."""
    parts = re.split(r"(?<=[/.])", name)
    return Markup("<wbr>".join(text(part) for part in parts if part))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name …>children</name>`.

    Args:
        children: `Markup` as it is, anything else as text.
        attributes: with `_` for `-`; one at the end (`class_`) is left out. None leaves an attribute out.
    """
    inner = "".join(child if isinstance(child, Markup) else text(child) for child in children)
    return Markup(f"<{name}{_attributes(attributes)}>{inner}</{name}>")


def empty(name: str, /, **attributes: object) -> Markup:
    """An element that has no end tag in HTML, such as `<meta>`."""
    return Markup(f"<{name}{_attributes(attributes)}>")


def number(value: float) -> str:
    """A coordinate: at most two digits after the point."""
    return f"{round(float(value), 2) + 0.0:g}" if abs(value) < 1e5 else f"{value:.0f}"


def _attributes(attributes: dict[str, object]) -> str:
    parts = []
    for key, value in attributes.items():
        if value is None:
            continue
        shown = number(value) if isinstance(value, float) else str(value)
        name = key if key == "viewBox" else key.rstrip("_").replace("_", "-")
        parts.append(f' {name}="{text(shown)}"')
    return "".join(parts)
