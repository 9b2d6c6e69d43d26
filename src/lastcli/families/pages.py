"""The page of a family: how its compact files are loaded in the project's own code.

The pages are docs/families of the repository, and go with the package when it is built.
"""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

__all__ = ["loading_section", "page_text"]

_SECTION = re.compile(r"^## Loading a compact file[^\n]*\n(.*?)(?=^## |\Z)", flags=re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```python\n.*?^```$", flags=re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n.*?^```\n?", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+://)[^)]+\)")


def page_text(page: str) -> str | None:
    """The text of a page such as "docs/families/s5.md"; None where it is not installed."""
    name = Path(page).name
    places: list[Traversable] = [files("lastcli.families").joinpath("pages", name)]
    places.append(Path(__file__).parents[3] / page)
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    return None


def loading_section(page: str) -> str | None:
    """What the page says on loading a compact file, as Markdown without commands of `last` and without local links."""
    text = page_text(page)
    if text is None:
        return None
    found = _SECTION.search(text)
    part = found[1] if found else "\n\n".join(_CODE.findall(text))
    part = re.sub(r"\n{3,}", "\n\n", _CONSOLE.sub("", part))
    return _LINK.sub(r"\1", part).strip() or None
