"""From flags and a recipe to a `Plan`, and where each of its values came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lastcli.errors import UsageError
from lastcli.mappings import suggestion
from lastcli.plan.checks import check_plan
from lastcli.plan.plan import Plan
from lastcli.plan.recipes import FIELDS, load_recipe, read_value

__all__ = ["Resolved", "build_plan", "resolve_plan"]

# One of a kind given by the caller replaces the recipe's several.
_PLURALS = {"method": "methods", "refit": "refits", "ratio": "ratios"}
_GOALS = ("ratio", "states", "max_drop")


class Resolved(NamedTuple):
    """A plan, and the source of every field that is not at its default: "flag" or "recipe"."""

    plan: Plan
    sources: Mapping[str, str]


def build_plan(flags: Mapping[str, Any], recipe: Path | None = None) -> Plan:
    """The plan of a run; see `resolve_plan`."""
    return resolve_plan(flags, recipe).plan


def resolve_plan(flags: Mapping[str, Any], recipe: Path | None = None) -> Resolved:
    """The plan of a run with its sources: defaults, then the recipe, then every flag that is not None.

    Raises:
        UsageError: a flag's value is out of range, or options contradict each other.
        InputError: the recipe is damaged or names an unknown key.
    """
    values = load_recipe(recipe) if recipe is not None else {}
    for key, value in flags.items():
        if key not in FIELDS:
            raise UsageError(f"There is no option {key!r}.{suggestion(key, FIELDS)}")
        if value is not None:
            values[key] = read_value(key, value, _typed(key), UsageError)
            if key in _PLURALS and flags.get(_PLURALS[key]) is None:
                values.pop(_PLURALS[key], None)
    # the last of the goals that is more explicit wins: a flag replaces the recipe's goal
    goals = [key for key in _GOALS if flags.get(key) is not None]
    if len(goals) > 1 and not ("max_drop" in goals and flags.get("ratios") is not None):
        raise UsageError(f"{_typed(goals[0])} and {_typed(goals[1])} exclude each other.")
    if goals:
        for key in _GOALS:
            if key not in goals:
                values.pop(key, None)
    # one source of calibration: a flag replaces the recipe's other one
    for key, other in (("calibration", "layer_inputs"), ("layer_inputs", "calibration")):
        if flags.get(key) is not None and flags.get(other) is None:
            values.pop(other, None)
    plan = Plan(**values)
    check_plan(plan)
    return Resolved(plan, {key: "recipe" if flags.get(key) is None else "flag" for key in values})


def _typed(key: str) -> str:
    return f"--{key.replace('_', '-')}"
