"""The finished rows of a sweep in a file (`--resume`), so that an interrupted one goes on where it was.

A file of JSON lines. The first one says what the rows are of: the SHA-256 of the checkpoint and of the inputs, the
description of the model and the options that decide a row; each further one is a row, on the disk before the next is
begun. A line that an interrupted run left half written is none. Of several processes the first one keeps the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from lastcli.containers.inputs import shown
from lastcli.containers.journal import open_journal
from lastcli.errors import InputError, OutputError
from lastcli.mappings import parse_json
from lastcli.parallel import processes
from lastcli.plan.options import PLACE
from lastcli.results import Costs, LayerCertificate, SweepRow
from lastcli.results.base import plain
from lastcli.verbs.shared.anatomy import Drawn
from lastcli.verbs.shared.session import Session

if TYPE_CHECKING:
    from lastcli.evaluation.data import Split

__all__ = ["Finished", "Rows", "finished_rows"]

SCHEMA = "last.rows/1"
Key = tuple[str, str, str]

# Options that say where things are, whose content is looked at instead; on what the run takes place; and what is asked
# of rows that are there already.
_UNBOUND = {
    *("checkpoint", "data", "calibration", "layer_inputs", "limit", "calibration_limit", "model", "name", "columns"),
    *(*PLACE, "resume"),
    *("method", "methods", "refit", "refits", "ratio", "fail_over", "fail_under", "published"),
}


@dataclass(frozen=True)
class Finished:
    """One run of a sweep that is done.

    Attributes:
        row: what was measured; None where the model cannot hold the result.
        within: whether it meets `max_drop`.
        non_finite: examples whose outputs are NaN or infinite.
        left_out: why there is no row.
        drawn: what its pictures are drawn from; there with every row, since a later run may ask for pictures.
    """

    row: SweepRow | None
    within: bool = True
    non_finite: int = 0
    left_out: str | None = None
    drawn: Drawn | None = None


@dataclass
class Rows:
    """The finished rows by (method, refit, ratio); `file` is open in the one process that writes them, if any does."""

    done: dict[Key, Finished] = field(default_factory=dict)
    file: BinaryIO | None = None

    def add(self, key: Key, finished: Finished) -> None:
        """One more row, on the disk when this returns.

        Raises:
            OutputError: it cannot be written.
        """
        self.done[key] = finished
        if self.file is not None:
            _append(self.file, {"run": key, **dataclasses.asdict(finished), "drawn": _drawn_document(finished.drawn)})


@contextlib.contextmanager
def finished_rows(session: Session, calibration: Split | None, *, certify: bool) -> Iterator[Rows]:
    """The rows that are finished already, and where further ones go; without `--resume` there are none.

    Raises:
        InputError: the file is of another checkpoint, of other data or of another plan, or damaged.
        OutputError: it cannot be written, or another run is writing it.
    """
    if session.plan.resume is None:
        yield Rows()
        return
    path = Path(session.plan.resume)
    with contextlib.ExitStack() as stack:

        def opened() -> dict[Key, Finished]:
            rows.file = stack.enter_context(open_journal(path, "finished rows"))
            return _read(path, rows.file, _bound_to(session, calibration, certify=certify))

        rows = Rows()
        rows.done = dict(processes.first_only(opened))
        if rows.done:
            session.note(f"Going on from {len(rows.done)} finished rows in {shown(path, 1000)}.")
        yield rows


def _read(path: Path, file: BinaryIO, bound: Mapping[str, Any]) -> dict[Key, Finished]:
    """The rows in a file, which is cut behind the last whole one; a new file begins with what its rows are of."""
    where = shown(path, 1000)
    data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    if not whole and data and not _begins_with_ours(data):
        raise InputError(f"{where} holds no finished rows of a sweep; name another file with --resume.")
    lines = whole.splitlines()
    if lines:
        head = parse_json(lines[0], f"{where}, line 1", remedy="name another file with --resume", finite=False)
        _require_same(where, head, bound)
    file.seek(len(whole))
    file.truncate()
    if not lines:
        _append(file, bound)
    done: dict[Key, Finished] = {}
    for number, line in enumerate(lines[1:], start=2):
        entry = parse_json(line, f"{where}, line {number}", remedy="remove the line", finite=False)
        try:
            method, refit, ratio = entry.pop("run")
            done[method, refit, ratio] = Finished(
                **{**entry, "row": _row(entry["row"]), "drawn": _drawn(entry["drawn"], entry["row"])}
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}, line {number} is no row of a sweep; remove the line.") from error
    return done


def _begins_with_ours(data: bytes) -> bool:
    return data.startswith(json.dumps({"schema": SCHEMA})[:-1].encode()[: len(data)])


def _row(entry: Mapping[str, Any] | None) -> SweepRow | None:
    if entry is None:
        return None
    found = tuple(LayerCertificate(**one) for one in entry["certificates"])
    return SweepRow(**{**entry, "layers": tuple(entry["layers"]), "certificates": found})


def _drawn_document(one: Drawn | None) -> dict[str, Any] | None:
    if one is None:
        return None
    poles = [None if array is None else [array.real.tolist(), array.imag.tolist()] for array in one.poles]
    return plain({"costs": one.costs, "kept": one.kept}) | {"poles": poles}


def _drawn(entry: Mapping[str, Any] | None, row: Any) -> Drawn | None:
    if (entry is None) != (row is None):
        raise ValueError("a row without what is drawn of it")
    if entry is None:
        return None
    poles = (None if parts is None else np.array(parts[0]) + 1j * np.array(parts[1]) for parts in entry["poles"])
    kept = tuple(np.array(layer, np.int64) for layer in entry["kept"])
    return Drawn(Costs(**entry["costs"]), kept, tuple(poles))


def _append(file: BinaryIO, document: Mapping[str, Any]) -> None:
    try:
        file.write(json.dumps(document).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{shown(file.name, 1000)}: a finished row cannot be kept ({error.strerror}).") from error


def _bound_to(session: Session, calibration: Split | None, *, certify: bool) -> dict[str, Any]:
    """What decides the rows."""
    checkpoint, plan = session.checkpoint, session.reducing
    options = {item.name: getattr(plan, item.name) for item in dataclasses.fields(plan) if item.name not in _UNBOUND}
    if plan.steps == 1:
        options.pop("ratios")  # of several stages the other ratios are stages on the way
    recorded, measured = plan.layer_inputs, session.examples.measured_on
    return {
        "schema": SCHEMA,
        "checkpoint": checkpoint.sha256,
        "model": plain({"family": checkpoint.family.name, "name": plan.name, **checkpoint.config}),
        "data": None if measured is None else measured.digest(),
        "calibration": None if calibration is None else calibration.digest(),
        "layer_inputs": None if recorded is None else hashlib.sha256(Path(recorded).read_bytes()).hexdigest(),
        "plan": plain({**options, "certify": certify}),
    }


def _require_same(where: str, head: Any, bound: Mapping[str, Any]) -> None:
    if not isinstance(head, dict) or head.get("schema") != SCHEMA:
        raise InputError(f"{where} holds no finished rows of a sweep; name another file with --resume.")
    named = {
        "checkpoint": "checkpoint",
        "model": "description of the model",
        "data": "held-out split",
        "calibration": "calibration split",
        "layer_inputs": "recording of layer inputs",
    }
    other = [text for key, text in named.items() if head.get(key) != bound[key]]
    plan = head.get("plan")
    old = plan if isinstance(plan, dict) else {}
    changed = sorted(key for key in {*old, *bound["plan"]} if old.get(key) != bound["plan"].get(key))
    other += ["--" + key.replace("_", "-") for key in changed]
    if other:
        raise InputError(
            f"{where} holds rows of a sweep with another {', another '.join(other)}; name another file with --resume, "
            "or repeat that sweep."
        )
