"""What a pruned file says of itself under the key `last`: written by prune, read (and not believed) by verify.

A file that was pruned several times carries the record of every pruning, the newest first and the earlier ones in its
`history`, each with the SHA-256 of the file it was made from, so that any file of the chain can be compared with any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lastcli._version import __version__
from lastcli.containers.inputs import shown
from lastcli.engine.protocol import Reduction
from lastcli.errors import InputError, UsageError
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import Method, Plan, Refit, build_plan

__all__ = ["UNKNOWN", "LayerRecord", "Record", "chain", "provenance"]

# Options that decide what a reduction is, beside method, refit and ratio.
_OPTIONS = (
    "min_states",
    "seed",
    "allow_unstable",
    "refuse_unstable",
    "match_output",
    "states_multiple",
    "allow_inexact",
    "steps",
)
_CHANGED = ("none", "readout", "all")
UNKNOWN = "0" * 64
"""Stands for a sha256 that is still being computed."""

# Counts and indices beyond this fit no array.
_LIMIT = 2**63


@dataclass(frozen=True)
class LayerRecord:
    """One layer of a pruning.

    Attributes:
        name: of the layer.
        kept: (sets, K) indices of the kept states.
        changed: as `Reduction.changed`.
    """

    name: str
    kept: np.ndarray
    changed: str


@dataclass(frozen=True)
class Record:
    """One pruning, as the file tells it.

    Attributes:
        sha256: of the file that was pruned.
        states_before, states_after: stored states of the whole model.
        options: what else decided it; empty in files of versions that did not write it.
        layers: in the order of the model; empty where an old version kept none.
    """

    sha256: str | None
    method: str
    refit: str
    ratio: float | None
    layout: str
    compat: str | None
    states_before: int | None
    states_after: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[LayerRecord, ...] = ()


def provenance(
    checkpoint: Checkpoint, reductions: Sequence[Reduction], plan: Plan, method: Method, refit: Refit, ratio: float
) -> dict[str, Any]:
    """The record of a pruning; the sha256 of the file that was pruned is for whoever writes it to fill in."""
    record: dict[str, Any] = {
        "version": __version__,
        "source": checkpoint.path.name,
        "sha256": UNKNOWN,
        "method": method.name,
        "refit": refit.name,
        "ratio": ratio,
        "layout": plan.layout,
        "compat": plan.compat,
        "options": {key: getattr(plan, key) for key in _OPTIONS},
        "states_before": sum(system.stored_states for system in checkpoint.systems),
        "states_after": sum(reduction.system.stored_states for reduction in reductions),
        "layers": [
            {
                "name": layer.name,
                "states": reduction.system.states,
                "changed": reduction.changed,
                "kept": np.asarray(reduction.kept).tolist()
                if reduction.system.multi
                else np.asarray(reduction.kept)[0].tolist(),
            }
            for layer, reduction in zip(checkpoint.layers, reductions)
        ],
    }
    if checkpoint.provenance:
        earlier = dict(checkpoint.provenance)
        history = earlier.pop("history", [])
        record["history"] = [*(history if isinstance(history, list) else []), earlier]
    return record


def chain(checkpoint: Checkpoint) -> tuple[Record, ...]:
    """The prunings that led to a file, the newest first; empty where it says nothing.

    Raises:
        InputError: the record is damaged; says where.
    """
    newest = checkpoint.provenance
    if not newest:
        return ()
    where = f"{checkpoint.path}: the record of its pruning"
    history = newest.get("history", [])
    return tuple(_read(entry, where) for entry in (newest, *reversed(history)))


def _read(entry: Mapping[str, Any], where: str) -> Record:
    layers = entry.get("layers", [])
    options = entry.get("options", {})
    if not isinstance(layers, list) or not isinstance(options, Mapping):
        # of an earlier pruning: those of the newest were looked at when the description was read
        raise InputError(f"{where} is damaged: layers must be a list and options a mapping.")
    layout, compat = _text(entry, "layout", where) or "ragged", _text(entry, "compat", where)
    return Record(
        sha256=_text(entry, "sha256", where),
        method=_text(entry, "method", where) or "",
        refit=_text(entry, "refit", where) or "",
        ratio=_number(entry, "ratio", where),
        layout=layout,
        compat=compat,
        states_before=_whole(entry, "states_before", where),
        states_after=_whole(entry, "states_after", where),
        options=_options({"layout": layout, "compat": compat, **options}, where) if options else {},
        layers=tuple(_layer(layer, where) for layer in layers),
    )


def _options(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options that decide a reduction, as a plan would have them; what a later version adds is left out."""
    known = {key: options[key] for key in ("layout", "compat", *_OPTIONS) if options.get(key) is not None}
    try:
        plan = build_plan(known)
    except UsageError as error:
        raise InputError(f"{where} is damaged: {error}") from error
    return {key: getattr(plan, key) for key in _OPTIONS if key in known}


def _layer(entry: Any, where: str) -> LayerRecord:
    if not isinstance(entry, Mapping):
        raise InputError(f"{where} is damaged: a layer is {entry!r}.")
    name, changed = str(entry.get("name")), entry.get("changed", "none")
    rows = entry.get("kept", [])
    rows = rows if isinstance(rows, list) and rows and all(isinstance(row, list) for row in rows) else [rows]
    sound = all(isinstance(row, list) and all(type(i) is int and abs(i) < _LIMIT for i in row) for row in rows)
    if not sound or len({len(row) for row in rows}) != 1 or changed not in _CHANGED:
        raise InputError(f"{where} is damaged: layer {name} does not say which states stayed, or what became of them.")
    kept = np.array(rows, dtype=np.int64).reshape(len(rows), -1)
    return LayerRecord(name, kept, changed)


def _text(entry: Mapping[str, Any], key: str, where: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where} is damaged: {key} is {shown(value)}, not text.")
    return value


def _number(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    value = entry.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise InputError(f"{where} is damaged: {key} is {shown(value)}, not a number.")
    if value is not None and not 0 <= value <= 1:
        raise InputError(f"{where} is damaged: {key} is not between 0 and 1.")
    return None if value is None else float(value)


def _whole(entry: Mapping[str, Any], key: str, where: str) -> int | None:
    value = entry.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < _LIMIT):
        raise InputError(f"{where} is damaged: {key} is {shown(value)}, not a count of states.")
    return value
