"""Command, recipe, files and versions that a result was made from."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

from lastcli._version import __version__
from lastcli.plan import BUNDLED, Plan, is_bundled
from lastcli.plan.drawn import draws
from lastcli.plan.written import as_recipe
from lastcli.results import Origin, SourceFile
from lastcli.verbs.shared.session import Session
from lastcli.verbs.shared.sources import choose_calibration, choose_data

__all__ = ["origin_of", "versions"]

_COMPUTE = ("jax", "jaxlib", "numpy", "scipy")


def origin_of(
    session: Session, command: Sequence[str] = (), *, measured: bool = False, output: str | None = None
) -> Origin:
    """Where a result of the session comes from.

    Args:
        command: as typed, without the program.
        measured: whether the held-out split was read.
        output: the checkpoint that was written.
    """
    checkpoint = session.checkpoint
    files = [SourceFile(role="checkpoint", path=checkpoint.label, sha256=checkpoint.sha256)]
    return Origin(
        command=tuple(command),
        recipe=as_recipe(_plan(session, measured)),
        files=(*files, *_splits(session, measured), *_written(output)),
        versions=versions(),
        moment=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _plan(session: Session, measured: bool) -> Plan:
    """The plan with what the session chose where nothing was named."""
    plan = session.reducing
    named = {"checkpoint": plan.checkpoint or session.checkpoint.label}
    if plan.methods is not None:
        named["method"] = None  # type: ignore[assignment]
    if measured and plan.data is None and session.source.bundled:
        named["data"] = f"{BUNDLED}:test"
    return plan.replace(**named)


def versions() -> dict[str, str]:
    """Of `last`, of Python and of what computes; no library is imported for it."""
    found = {"last": __version__, "python": platform.python_version()}
    for name in _COMPUTE:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"machine": f"{platform.system()} {platform.machine()}"}


def _written(output: str | None) -> list[SourceFile]:
    if output is None or not Path(output).is_file():
        return []
    return [SourceFile(role="output", path=output, sha256=_sha256(Path(output)))]


def _splits(session: Session, measured: bool) -> list[SourceFile]:
    plan, bundled = session.plan, session.source.bundled
    chosen = []
    if measured and (plan.data is not None or bundled):
        chosen.append(("data", plan.data, choose_data(plan, bundled=bundled).location.path))
    if plan.layer_inputs is not None:
        chosen.append(("layer inputs", plan.layer_inputs, Path(plan.layer_inputs)))
    else:
        source = None if draws(plan.calibration) else choose_calibration(plan, bundled=bundled)
        if source is not None and session.examples.calibrated:
            chosen.append(("calibration", plan.calibration, source.location.path))
    return [
        SourceFile(role=role, path=_named(named, path), sha256=_sha256(path))
        for role, named, path in chosen
        if path.is_file()
    ]


def _named(named: str | None, path: Path) -> str:
    return f"bundled:{path.stem}" if named is None or is_bundled(named) else named


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
