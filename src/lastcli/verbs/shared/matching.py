"""Which states of ORIGINAL are in PRUNED: by the record in PRUNED, else by equal poles and input maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lastcli.engine.embedding import truncate_system
from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.model.checkpoint import Checkpoint

__all__ = ["Matched", "match_layers"]

# Stored in float32 (or less), recomputed in float64 from different neighbours: equal up to the storage's rounding.
RELATIVE = 1e-5


@dataclass(frozen=True)
class Matched:
    """One layer of PRUNED as a reduction of ORIGINAL's; `detail` says why where it is none."""

    found: bool
    reduction: Reduction
    states: int
    detail: str = ""


def match_layers(before: Checkpoint, after: Checkpoint) -> list[Matched]:
    """One `Matched` a layer."""
    records = {entry.get("name"): entry for entry in after.provenance.get("layers", ()) if isinstance(entry, Mapping)}
    return [
        _match(old, new, records.get(layer.name))
        for layer, old, new in zip(before.layers, before.systems, after.systems)
    ]


def _match(old: DiagonalSystem, new: DiagonalSystem, record: Mapping[str, Any] | None) -> Matched:
    if (old.groups, old.inputs, old.outputs, old.directions, old.modes) != (
        new.groups,
        new.inputs,
        new.outputs,
        new.directions,
        new.modes,
    ):
        return Matched(False, Reduction(np.zeros((1, 0), int), new), new.states, "the layer has another width")
    if record is None:
        kept, width = _by_poles(old, new)
        if kept is None:
            return Matched(
                False,
                Reduction(np.zeros((old.sets, 0), int), new),
                new.states,
                "its poles are not ORIGINAL's, and no record says what was done",
            )
        changed = "readout"
    else:
        kept = np.atleast_2d(np.asarray(record.get("kept", []), int))
        width, changed = kept.shape[1], str(record.get("changed", "none"))
        if kept.shape[0] != old.sets or width > min(old.states, new.states) or (width and kept.max() >= old.states):
            return Matched(False, Reduction(kept, new), new.states, "the record's kept states do not fit the layer")
    active = _first(new, width)
    if _has_life(new, width):
        return Matched(False, Reduction(kept, active), width, f"states beyond the {width} kept ones are not inert")
    plain = truncate_system(old, kept)
    if changed != "all" and not (_close(plain.poles, active.poles) and _close(plain.B, active.B)):
        return Matched(False, Reduction(kept, active, changed), width, "poles or B differ from ORIGINAL's")
    if changed == "none" and not _close(plain.C, active.C):
        return Matched(False, Reduction(kept, active, changed), width, "C differs from ORIGINAL's")
    # what must be ORIGINAL's is taken from ORIGINAL, so that comparing outputs proves something
    if changed == "none":
        active = plain.replace(D=old.D)
    elif changed == "readout":
        active = active.replace(poles=plain.poles, B=plain.B)
    return Matched(True, Reduction(kept, active, changed), width)


def _first(system: DiagonalSystem, count: int) -> DiagonalSystem:
    width = count * system.modes
    return system.replace(poles=system.poles[:, :width], B=system.B[:, :width], C=system.C[..., :width])


def _has_life(system: DiagonalSystem, count: int) -> bool:
    rest = count * system.modes
    return bool(np.any(system.B[:, rest:]) and np.any(system.C[..., rest:]))


def _close(first: np.ndarray, second: np.ndarray) -> bool:
    scale = float(np.abs(first).max(initial=0.0))
    return bool(np.abs(first - second).max(initial=0.0) <= RELATIVE * max(scale, 1e-30))


def _by_poles(old: DiagonalSystem, new: DiagonalSystem) -> tuple[np.ndarray | None, int]:
    """Indices of `old` whose poles and inputs are those of `new`, in ascending order as `last prune` writes them."""
    live = np.any(new.B != 0, axis=2) & np.any(new.C != 0, axis=(1, 2))
    width = int(live.any(axis=0).reshape(-1, new.modes).any(axis=1).sum())
    kept = np.zeros((old.sets, width), int)
    for group in range(old.sets):
        position = 0
        for state in range(width):
            wanted = slice(state * new.modes, (state + 1) * new.modes)
            while position < old.states:
                own = slice(position * old.modes, (position + 1) * old.modes)
                same = _close(old.poles[group, own], new.poles[group, wanted]) and _close(
                    old.B[group, own], new.B[group, wanted]
                )
                position += 1
                if same:
                    break
            else:
                return None, width
            kept[group, state] = position - 1
    return kept, width
