"""What a shell offers behind an option: methods, refits, layouts, families; of a list, its next entry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from lastcli.plan import METHODS, REFITS, Plan

__all__ = ["completer"]


def _families() -> Iterable[str]:
    from lastcli.families import FAMILIES

    return FAMILIES


_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "method": lambda: METHODS,
    "methods": lambda: METHODS,
    "refit": lambda: REFITS,
    "refits": lambda: REFITS,
    "to_family": _families,
}
_LISTS = ("methods", "refits")
_CHOICES = {item.name: item.metadata["choices"] for item in dataclasses.fields(Plan)}


def completer(name: str) -> Callable[[str], list[str]] | None:
    """What completes the values of an option, or None where nothing is known about them."""
    if name not in _NAMES and not _CHOICES.get(name):
        return None

    # Typer looks at the name of the parameter
    def complete(incomplete: str) -> list[str]:
        names = _NAMES[name]() if name in _NAMES else _CHOICES[name]
        return _in_list(names, incomplete) if name in _LISTS else _beginning(names, incomplete)

    return complete


def _beginning(names: Iterable[str], begun: str) -> list[str]:
    return [name for name in names if name.startswith(begun)]


def _in_list(names: Iterable[str], begun: str) -> list[str]:
    """The next entry of `a,b,…`, without those that are there."""
    before, comma, last = begun.rpartition(",")
    there = before.split(",")
    return [f"{before}{comma}{name}" for name in _beginning(names, last) if name not in there]
