"""Entries that a user names, found by their names; and the functions that they name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from lastcli.errors import UsageError
from lastcli.mappings import suggestion

__all__ = ["function_at", "named", "registry"]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=_Named)


def registry(entries: Iterable[Entry]) -> dict[str, Entry]:
    """{name: entry}, in order."""
    return {entry.name: entry for entry in entries}


def named(value: Any, entries: dict[str, Entry], what: str) -> Entry:
    """The entry of that name.

    Args:
        value: what was given for a name.
        entries: a registry.
        what: what a sentence calls an entry.

    Raises:
        UsageError: there is none, or the value is no name.
    """
    if not isinstance(value, str):
        raise UsageError(f"A {what} is a name such as {next(iter(entries))!r}, not {value!r}.")
    if value not in entries:
        raise UsageError(f"there is no {what} {value!r}.{suggestion(value, entries)}")
    return entries[value]


def function_at(place: str) -> Callable[..., Any]:
    """The function that "module:function" stands for; the module is imported only now."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
