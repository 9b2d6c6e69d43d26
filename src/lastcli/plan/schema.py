"""The JSON schema of a recipe, made from the fields of `Plan`: what editors complete, explain and underline.

It accepts what `load_recipe` accepts, as far as a schema can say it: YAML 1.1 reads `1e-3` as text, so numbers may be
written as either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lastcli.plan.methods import BEST, METHODS
from lastcli.plan.plan import ABOUT, Plan
from lastcli.plan.refits import REFITS

__all__ = ["DIALECT", "recipe_schema", "value_schema"]

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_WHOLE = r"^\s*[+-]?\d+\s*$"
_RATIO = r"^\s*\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*%?\s*$"
_YES_AND_NO = ("true", "false", "yes", "no", "on", "off", "0", "1", 0, 1)
_TEXT: Schema = {"type": ["string", "number"]}
_ABOUT_HELP = {
    "title": "what the recipe is, for people",
    "source": "where it comes from, for people",
    "note": "anything else, for people",
    "paper": "settings of the paper that it repeats, for people",
}


def recipe_schema(model: Schema | None = None) -> Schema:
    """The schema, draft 2020-12.

    Args:
        model: of the description of the model; None for any mapping.
    """
    about = {key: {"description": _ABOUT_HELP[key]} | ({} if key == "paper" else _TEXT) for key in ABOUT}
    options = {item.name: _option(item, model or {"type": "object"}) for item in dataclasses.fields(Plan)}
    return {
        "$schema": DIALECT,
        "title": "recipe of last",
        "description": "Options of last sweep, last prune and the other commands; docs/recipes.md",
        "type": "object",
        "additionalProperties": False,
        "properties": {key: _or_nothing(of) for key, of in {**about, **options}.items()},
    }


def value_schema(kind: type, choices: Sequence[Any] = (), least: int | None = None) -> Schema:
    """What `mappings.convert` reads as a bool, int, float or str."""
    if choices:
        return {"enum": list(choices)}
    if kind is bool:
        return {"anyOf": [{"type": "boolean"}, {"enum": list(_YES_AND_NO)}]}
    if kind is str:
        return _TEXT
    number: Schema = {"type": "integer" if kind is int else "number"}
    if least is not None:
        number["minimum"] = least
    return {"anyOf": [number, {"type": "string", "pattern": _WHOLE if kind is int else _NUMBER}]}


def _option(item: dataclasses.Field[Any], model: Schema) -> Schema:
    kind, choices = item.metadata["kind"], item.metadata["choices"]
    said: Schema = {"description": item.metadata["help"]}
    if item.default is not None:
        said["default"] = item.default
    if kind == "mapping":
        return said | model
    named = _NAMED.get(kind) if isinstance(kind, str) else None
    return said | (named or value_schema(kind, choices, item.metadata["least"]))


def _or_nothing(of: Schema) -> Schema:
    """A key without a value is a key that is not there."""
    head: Schema = {key: of[key] for key in ("description", "default") if key in of}
    rest = {key: value for key, value in of.items() if key not in head}
    if not rest:
        return head
    return head | {"anyOf": [*rest.pop("anyOf", [rest] if rest else []), {"type": "null"}]}


def _names(known: Sequence[str]) -> Schema:
    return {"enum": list(known)}


def _several(known: Sequence[str]) -> Schema:
    """One or several names: a list, or text with commas."""
    one = f"({'|'.join(name.replace('+', '[+]') for name in known)})"
    text = {"type": "string", "pattern": rf"^\s*{one}\s*(,\s*{one}\s*)*$"}
    return {"anyOf": [{"type": "array", "items": _names(known), "minItems": 1}, _names(known), text]}


_A_RATIO: Schema = {
    "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": _RATIO}],
}
_PUBLISHED: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["source"],
    "properties": {
        "source": {"description": "where the numbers are printed", **_TEXT},
        "metric": {"description": "what they are values of", "type": "string", "default": "accuracy"},
        "full": {"description": "of the model before pruning; an accuracy is a fraction", **value_schema(float)},
        "methods": {
            "description": "of each method, without a refit: {ratio: value}",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {
                    "type": "object",
                    "patternProperties": {_RATIO: value_schema(float)},
                    "additionalProperties": False,
                }
                for name in METHODS
            },
        },
    },
}
_NAMED: Mapping[str, Schema] = {
    "path": _TEXT,
    "ratio": _A_RATIO,
    "ratios": {"anyOf": [*_A_RATIO["anyOf"][:1], {"type": "string"}, {"type": "array", "items": _A_RATIO}]},
    "method": _names([*METHODS, BEST.name]),
    "methods": _several(list(METHODS)),
    "refit": _names(list(REFITS)),
    "refits": _several(list(REFITS)),
    "published": _PUBLISHED,
}
