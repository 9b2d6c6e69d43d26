"""The recipe that repeats a pruning: written beside what `--method best` found, read by `--recipe`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lastcli import containers
from lastcli.mappings import load_mapping
from lastcli.plan import Plan, names_no_file
from lastcli.plan.options import PLACE, PruneOptions, fields_of
from lastcli.plan.written import written
from lastcli.verbs.shared.session import Session

__all__ = ["check_recipe_place", "recipe_path", "write_recipe"]

_DEFAULTS = {item.name: item.default for item in dataclasses.fields(Plan)}


def recipe_path(out: Path) -> Path:
    """Where the recipe of an output stands: `small.safetensors` has `small.recipe.yaml`."""
    return out.with_name(f"{out.stem}.recipe.yaml")


def check_recipe_place(out: Path, *, force: bool) -> None:
    """Refuse, before any work, to replace a recipe.

    Raises:
        OutputError: one is there and `force` is not given, or none can be written.
    """
    containers.check_place(recipe_path(out), force=force)


def write_recipe(session: Session, plan: Plan, out: Path, *, force: bool) -> Path:
    """Write what `last prune --recipe` needs to make the same file again, and give its path.

    Args:
        plan: of the pruning, with its method, refit and goal.
        out: the pruned checkpoint; paths in the recipe are relative to its folder.

    Raises:
        OutputError: it cannot be written.
    """
    import yaml

    path = recipe_path(out)
    folder = path.parent.resolve()
    values: dict[str, Any] = {"title": f"What last prune --method best found for {session.checkpoint.path.name}"}
    values["checkpoint"] = _place(str(session.source.path) if not session.source.bundled else "bundled", folder)
    for key in ("data", "calibration", *fields_of(PruneOptions)):
        value = getattr(plan, key)
        if key not in values and key not in PLACE and value != _DEFAULTS[key]:
            values[key] = _plain(key, value, folder)
    description = _description(session)
    if description:
        values["model"] = description
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    containers.write_file(path, text.encode(), force=force)
    return path


def _plain(key: str, value: Any, folder: Path) -> Any:
    return _place(value, folder) if key in ("data", "calibration", "layer_inputs") else written(value)


def _place(named: str, folder: Path) -> str:
    """A path as the recipe has it: relative to its folder."""
    if names_no_file(named):
        return named
    return Path(os.path.relpath(named, folder)).as_posix()


def _description(session: Session) -> dict[str, Any]:
    """What was said about the model: by a recipe, a file of its own, and flags, the strongest last."""
    said: dict[str, Any] = dict(session.plan.model or {})
    if session.model_config is not None:
        said |= _mapping(load_mapping(session.model_config))
    return said | _mapping(session.flags)


def _mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in values.items()}
