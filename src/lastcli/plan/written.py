"""A plan as the recipe that would give it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lastcli.plan.methods import Method, Refit
from lastcli.plan.options import PLACE
from lastcli.plan.plan import Plan

__all__ = ["as_recipe"]

# Rows that were finished before are the rows that a run without them would compute.
_LEFT_OUT = {*PLACE, "resume"}


def as_recipe(plan: Plan) -> dict[str, Any]:
    """{key: value} in YAML's own types, of every option that is not at its default and that the result depends on.

    A method of one's own is named; a recipe cannot hold the function.
    """
    found = {}
    for item in dataclasses.fields(plan):
        value = getattr(plan, item.name)
        if value is not None and value != item.default and item.name not in _LEFT_OUT:
            found[item.name] = _written(value)
    return found


def _written(value: Any) -> Any:
    if isinstance(value, Method | Refit):
        return value.name
    if isinstance(value, Decimal):
        return float(value) if len(str(float(value))) < 12 else str(value)
    if isinstance(value, Mapping):
        return {str(key): _written(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_written(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else str(value)
