"""`recipe show`: the plan of a run, every value with its source. Nothing is computed; imports no JAX."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lastcli.errors import LastError
from lastcli.plan import BEST, BUNDLED, Plan
from lastcli.plan.building import Resolved
from lastcli.plan.written import written
from lastcli.results import ConfigValue, RecipeShowResult
from lastcli.verbs.shared.session import Session

__all__ = ["show"]


def show(session: Session, resolved: Resolved, recipe: Path | None) -> RecipeShowResult:
    """What a run with this plan would take, and why; what the checkpoint decides is there where it can be opened.

    Args:
        session: of the plan, in one process.
        resolved: the plan with its sources.
        recipe: the file.
    """
    plan, sources = resolved.plan, resolved.sources
    values = {
        item.name: ConfigValue(value=written(getattr(plan, item.name)), source=sources.get(item.name, "default"))
        for item in dataclasses.fields(Plan)
        if item.name != "model"
    }
    values |= _named_by_nobody(session)
    notes = []
    try:
        model = {key: ConfigValue(value=s.value, source=s.source) for key, s in session.checkpoint.settings.items()}
        values |= _decided(session)
        family = session.checkpoint.family.name
    except LastError as error:
        notes.append(f"What the checkpoint decides is not known: {error}")
        model = _said(session)
        family = None
    return RecipeShowResult(
        recipe=None if recipe is None else str(recipe),
        checkpoint=BUNDLED if session.source.bundled else str(session.source.path),
        family=family,
        options=values,
        model={key: value for key, value in model.items() if value.source != "idle"},
        notes=tuple(notes),
    )


def _named_by_nobody(session: Session) -> dict[str, ConfigValue]:
    """The files that are taken where none is named."""
    plan, source = session.plan, session.source
    found = {}
    if plan.checkpoint is None:
        how = "bundled" if source.bundled else "found"
        found["checkpoint"] = ConfigValue(value=BUNDLED if source.bundled else str(source.path), source=how)
    if source.bundled and plan.data is None:
        found["data"] = ConfigValue(value=f"{BUNDLED}:test", source="bundled")
    if source.bundled and plan.calibration is None and plan.layer_inputs is None:
        found["calibration"] = ConfigValue(value=f"{BUNDLED}:calibration", source="bundled")
    return found


def _decided(session: Session) -> dict[str, ConfigValue]:
    """What the family decides of method and layout, and the method of the refit, where nothing is said."""
    plan, reducing = session.plan, session.reducing
    found = {}
    several = plan.methods is not None
    if plan.method is None and not several:
        found["method"] = ConfigValue(value=written(reducing.method), source="family")
    if plan.layout is None:
        found["layout"] = ConfigValue(value=reducing.layout, source="family")
    one = reducing.method
    if plan.refit is None and plan.refits is None and not several and one is not None and one is not BEST:
        refit = one.refit(calibrated=session.examples.has_calibration)
        found["refit"] = ConfigValue(value=written(refit), source="method")
    return found


def _said(session: Session) -> dict[str, ConfigValue]:
    """The description as far as it is said without the checkpoint."""
    said: dict[str, Any] = {key: ("recipe", value) for key, value in (session.plan.model or {}).items()}
    said |= {key: ("flag", value) for key, value in session.flags.items()}
    return {str(key): ConfigValue(value=value, source=source) for key, (source, value) in said.items()}
