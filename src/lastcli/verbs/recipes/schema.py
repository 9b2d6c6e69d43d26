"""`recipe schema`: the schema of a recipe with the options of every model family. Imports no JAX."""

from __future__ import annotations

from typing import Any

from lastcli.families import FAMILIES, family_named
from lastcli.families.base import Family, Option
from lastcli.families.mapped import MAP_KEYS
from lastcli.plan.schema import recipe_schema, value_schema

__all__ = ["schema"]

_MAP_HELP = {
    "layers": "paths of the layers in a file with names of its own (docs/maps.md)",
    "names": "the family's part: the file's tensor, or a function of tensors (docs/maps.md)",
    "axes": "the family's axes by their number in the file's tensor (docs/maps.md)",
}


def schema() -> dict[str, Any]:
    """The JSON schema, draft 2020-12: keys of the plan, and below `model` those of the family that is named."""
    return recipe_schema(
        {
            "type": "object",
            "properties": {"family": {"description": "the model family", "enum": list(FAMILIES)}},
            "allOf": [_of_family(family_named(name)) for name in FAMILIES],
        }
    )


def _of_family(family: Family) -> dict[str, Any]:
    """What may stand beside `family: NAME`."""
    keys: dict[str, Any] = {"family": True}
    keys |= {key: {"description": _MAP_HELP[key]} for key in MAP_KEYS}
    keys |= {option.key: _of_option(option) for option in family.options}
    return {
        "if": {"properties": {"family": {"const": family.name}}, "required": ["family"]},
        "then": {"properties": keys, "additionalProperties": False},
    }


def _of_option(option: Option) -> dict[str, Any]:
    said: dict[str, Any] = {"description": option.help}
    if option.default is not None:
        said["default"] = option.default
    of = value_schema(option.kind, option.choices)
    return said | {"anyOf": [*of.get("anyOf", [of]), {"type": "null"}]}
