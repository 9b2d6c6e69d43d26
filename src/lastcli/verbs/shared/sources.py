"""Which checkpoint and which data a run takes where the user names none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lastcli.errors import UsageError
from lastcli.plan import BUNDLED, Plan

__all__ = ["Source", "choose_calibration", "choose_checkpoint", "choose_data"]

_SPLITS = ("test", "validation", "calibration")


@dataclass(frozen=True)
class Source:
    """A file that was chosen, and the words that say why."""

    path: Path
    how: str
    bundled: bool = False


def choose_checkpoint(plan: Plan) -> Source:
    """The plan's checkpoint, else `./model.safetensors`, else the bundled demo model."""
    if plan.checkpoint is not None and plan.checkpoint != BUNDLED:
        return Source(Path(plan.checkpoint), "as named")
    if plan.checkpoint is None and Path("model.safetensors").exists():
        return Source(Path("model.safetensors"), "./model.safetensors, since none was named")
    from lastcli import demo

    how = "the bundled demo model" + ("" if plan.checkpoint else ", since none was named")
    return Source(demo.checkpoint(), how, bundled=True)


def choose_data(plan: Plan, checkpoint: Source) -> Source:
    """The held-out split: the plan's, else the bundled test split for the bundled model.

    Raises:
        UsageError: the command needs data and has none.
    """
    return _split(plan.data, "test", checkpoint, "--data", "a held-out split")


def choose_calibration(plan: Plan, checkpoint: Source) -> Source | None:
    """The calibration split: the plan's, else the bundled one for the bundled model, else None."""
    if plan.calibration is None and not checkpoint.bundled:
        return None
    return _split(plan.calibration, "calibration", checkpoint, "--calibration", "calibration inputs")


def _split(named: str | None, default: str, checkpoint: Source, flag: str, what: str) -> Source:
    from lastcli import demo

    if named is None:
        if not checkpoint.bundled:
            raise UsageError(f"This needs {what}; give an .npz file with {flag}.")
        return Source(demo.split(default), f"the bundled {default} split", bundled=True)
    if named == BUNDLED or named.startswith(f"{BUNDLED}:"):
        name = named.partition(":")[2] or default
        if name not in _SPLITS:
            raise UsageError(f"{flag} {named}: the bundled splits are {', '.join(_SPLITS)}.")
        return Source(demo.split(name), f"the bundled {name} split", bundled=True)
    return Source(Path(named), "as named")
