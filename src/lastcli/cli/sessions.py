"""From a command's flags to a `Session`: the recipe that counts, the plan, the settings of the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lastcli.cli.console import Console

if TYPE_CHECKING:
    from lastcli.plan.building import Resolved
    from lastcli.verbs.shared.session import Session

__all__ = ["RECIPE", "found_recipe", "session_of", "session_with_sources"]

# The recipe of a folder, where a command names neither a recipe nor a checkpoint.
RECIPE = Path("last.yaml")


def session_of(values: dict[str, Any], console: Console) -> Session:
    """The session of a command that takes `--recipe`.

    Raises:
        UsageError: the flags are wrong.
        InputError: the recipe is.
    """
    # Every session needs it, and it is best imported from few frames: CPython keeps frames in blocks of 16 KiB, and an
    # import so deep that it goes back and forth over the end of one has the system map and unmap a block each time.
    import numpy  # noqa: F401

    recipe = values.pop("recipe")
    if recipe is None and values.get("checkpoint") is None:
        recipe = found_recipe(console)
    session, _ = session_with_sources(values, console, recipe)
    return session


def found_recipe(console: Console) -> Path | None:
    """`last.yaml` in this folder, which is said, or None."""
    if not RECIPE.is_file():
        return None
    console.note(f"Recipe: {RECIPE} (found in this folder).")
    return RECIPE


def session_with_sources(
    values: dict[str, Any], console: Console, recipe: Path | None, *, alone: bool = False
) -> tuple[Session, Resolved]:
    """A session, and where every value of its plan came from.

    Args:
        alone: whether it stays one process, whatever the plan says.
    """
    from lastcli.model.description import parse_settings
    from lastcli.plan import resolve_plan
    from lastcli.verbs.shared.session import Session

    flags, model_config = parse_settings(values.pop("settings") or ()), values.pop("model_config")
    resolved = resolve_plan(values, recipe)
    plan = resolved.plan.alone() if alone else resolved.plan
    session = Session(plan, flags=flags, model_config=model_config, note=console.note, progress=console.progress)
    return session, resolved
