"""A plan as the recipe that would give it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lastcli.plan.methods import Method
from lastcli.plan.options import PLACE
from lastcli.plan.plan import Plan
from lastcli.plan.published import Published
from lastcli.plan.refits import Refit

__all__ = ["as_recipe", "written"]

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
            found[item.name] = written(value)
    return found


def written(value: Any) -> Any:
    """The value of an option in YAML's and JSON's own types."""
    if value is None:
        return None
    if isinstance(value, Published):
        return value.document()
    if isinstance(value, Method | Refit):
        return value.name
    if isinstance(value, Decimal):
        return float(value) if len(str(float(value))) < 12 else str(value)
    if isinstance(value, Mapping):
        return {str(key): written(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [written(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else str(value)
