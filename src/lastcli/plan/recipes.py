"""Recipes: YAML files that set fields of `Plan`, read key by key.

`load_recipe` takes a file or refuses it at its first mistake; `read_recipe` goes on and names every one, for
`last recipe check`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lastcli.errors import InputError, LastError, UsageError
from lastcli.mappings import convert, load_mapping, suggestion
from lastcli.plan.methods import Method, as_method
from lastcli.plan.plan import ABOUT, Plan, names_no_file
from lastcli.plan.published import parse_published
from lastcli.plan.ratios import parse_ratio, parse_ratios
from lastcli.plan.refits import Refit, as_refit

__all__ = ["FIELDS", "Mistake", "load_recipe", "read_recipe", "read_value"]

FIELDS = {item.name: item for item in dataclasses.fields(Plan)}


class Mistake(NamedTuple):
    """What is wrong with one key of a recipe, as a sentence that does not name the file."""

    key: str
    sentence: str


def load_recipe(path: Path) -> dict[str, Any]:
    """The fields a recipe sets; paths in it are relative to its folder.

    Raises:
        InputError: unknown key (with a suggestion), wrong kind of value, or a damaged file.
    """
    values, mistakes = read_recipe(path)
    if mistakes:
        raise InputError(f"{path}: {mistakes[0].sentence}")
    return values


def read_recipe(path: Path) -> tuple[dict[str, Any], list[Mistake]]:
    """The fields a recipe sets as far as they can be read, and every mistake in the others.

    Raises:
        InputError: the file is damaged, or no mapping.
    """
    values: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    for key, raw in load_mapping(path).items():
        if key in ABOUT or (key in FIELDS and raw is None):
            continue
        try:
            values[key] = _entry(key, raw, path.parent)
        except InputError as error:
            mistakes.append(Mistake(key, str(error)))
    return values, mistakes


def _entry(key: str, raw: Any, folder: Path) -> Any:
    if key not in FIELDS:
        raise InputError(f"unknown key {key!r}.{suggestion(key, [*FIELDS, *ABOUT])}")
    value = read_value(key, raw, key, InputError)
    if FIELDS[key].metadata["kind"] == "path" and not names_no_file(value):
        return str(folder / value)
    return value


def read_value(key: str, raw: Any, what: str, wrong: type[LastError]) -> Any:
    """What a field of the plan becomes of a flag's or recipe's value; `what` names it in messages.

    Raises:
        LastError: of the class `wrong`: not such a value.
    """
    kind, choices = FIELDS[key].metadata["kind"], FIELDS[key].metadata["choices"]
    if kind == "mapping":
        if not isinstance(raw, Mapping):
            raise wrong(f"{what} must be a mapping of option: value.")
        return dict(raw)
    if kind == "published":
        return parse_published(raw, what, wrong)
    if kind == "path":
        return convert(raw, str, what, wrong)
    if kind in ("ratio", "ratios"):
        try:
            return parse_ratio(raw) if kind == "ratio" else parse_ratios(raw)
        except UsageError as error:
            raise wrong(f"{what}: {error}") if wrong is InputError else error from None
    if kind in _NAMED:
        return _named(raw, kind, what, wrong)
    value = convert(raw, kind, what, wrong)
    if choices and value not in choices:
        raise wrong(f"{what}: there is no {key} {value!r}.{suggestion(value, choices)}")
    return value


_NAMED: dict[str, Callable[[Any], Method | Refit]] = {
    "method": as_method,
    "methods": as_method,
    "refit": as_refit,
    "refits": as_refit,
}


def _named(raw: Any, kind: str, what: str, wrong: type[LastError]) -> Any:
    """A method or refit, or for the plural kinds one or several of them without repeats."""
    read = _NAMED[kind]
    try:
        if not kind.endswith("s"):
            return read(raw)
        items = [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw
        return tuple(dict.fromkeys(read(item) for item in (items if isinstance(items, Iterable) else [items])))
    except UsageError as error:
        raise wrong(f"{what}: {error}") from None
