"""Which checkpoint and which data a run takes where the user names none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lastcli.errors import UsageError
from lastcli.plan import BUNDLED, Plan, is_bundled

if TYPE_CHECKING:
    from lastcli.evaluation.locations import Location

__all__ = ["DataSource", "Source", "choose_calibration", "choose_checkpoint", "choose_data", "named_checkpoint"]

_SPLITS = ("test", "validation", "calibration")


class Source(NamedTuple):
    """A file that was chosen, and the words that say why."""

    path: Path
    how: str
    bundled: bool = False


class DataSource(NamedTuple):
    """A split that was chosen, and the words that say why."""

    location: Location
    how: str
    bundled: bool = False


def named_checkpoint(path: str | Path) -> Source:
    """A checkpoint by its path, or `bundled`; a file of that name is `./bundled`."""
    if str(path) == BUNDLED:
        from lastcli import demo

        return Source(demo.checkpoint(), "the bundled demo model", bundled=True)
    return Source(Path(path), "as named")


def choose_checkpoint(plan: Plan) -> Source:
    """The plan's checkpoint, else `./model.safetensors`, else the bundled demo model."""
    if plan.checkpoint is not None:
        return named_checkpoint(plan.checkpoint)
    if Path("model.safetensors").exists():
        return Source(Path("model.safetensors"), "./model.safetensors, since none was named")
    bundled = named_checkpoint(BUNDLED)
    return bundled._replace(how=f"{bundled.how}, since none was named")


def choose_data(plan: Plan, *, bundled: bool) -> DataSource:
    """The held-out split: the plan's, else the bundled test split for the bundled model.

    Raises:
        UsageError: the command needs data and has none.
    """
    if plan.data is None and not bundled:
        raise UsageError("This needs a held-out split; give one with --data, for example an .npz file.")
    return _split(plan.data, "test", "--data")


def choose_calibration(plan: Plan, *, bundled: bool) -> DataSource | None:
    """The calibration split: the plan's, else the bundled one for the bundled model, else None."""
    if plan.calibration is None and not bundled:
        return None
    return _split(plan.calibration, "calibration", "--calibration")


def _split(named: str | None, default: str, flag: str) -> DataSource:
    from lastcli.evaluation.locations import Location, parse_location

    if named is not None and not is_bundled(named):
        return DataSource(parse_location(named), "as named")
    name = (named or BUNDLED).partition(":")[2] or default
    if name not in _SPLITS:
        raise UsageError(f"{flag} {named}: the bundled splits are {', '.join(_SPLITS)}.")
    from lastcli import demo

    return DataSource(Location(demo.split(name)), f"the bundled {name} split", bundled=True)
