"""Which states of ORIGINAL a layer of PRUNED claims to hold: by PRUNED's record, else by equal poles and input maps.

A claim is where a proof begins (`lastcli.verbs.shared.proof`); nothing here is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import System
from lastcli.model.checkpoint import Checkpoint
from lastcli.verbs.shared.record import Record

__all__ = ["Claim", "match_layers"]


@dataclass(frozen=True)
class Claim:
    """What a layer of PRUNED claims to be.

    Attributes:
        kept: (sets, K) indices of ORIGINAL's states.
        changed: as `Reduction.changed`; None where nothing says.
        wrong: why the claim cannot be true, or None.
    """

    kept: np.ndarray
    changed: str | None
    wrong: str | None = None

    @property
    def states(self) -> int:
        """K, the states of one index set that PRUNED's layer really has; the rest is inert."""
        return int(self.kept.shape[1])


def match_layers(before: Checkpoint, after: Checkpoint, steps: Sequence[Record]) -> list[Claim]:
    """One claim a layer; `steps` are the prunings that led from ORIGINAL to PRUNED, the newest first."""
    claims = []
    for index, (old, new) in enumerate(zip(before.systems, after.systems)):
        claim = _by_record(old, index, steps) if steps else _by_dynamics(old, new)
        claims.append(claim if claim.wrong else _checked(claim, old, new))
    return claims


def _by_record(old: System, index: int, steps: Sequence[Record]) -> Claim:
    """The indices of every pruning, put one into the other."""
    kept, states, changed = None, old.states, "none"
    for step in reversed(steps):
        if index >= len(step.layers):
            return Claim(np.zeros((old.sets, 0), int), None, "no record says which of its states stayed")
        layer = step.layers[index]
        wrong = _wrong_indices(layer.kept, old.sets, states)
        if wrong:
            return Claim(layer.kept, layer.changed, wrong)
        kept = layer.kept if kept is None else np.take_along_axis(kept, layer.kept, axis=1)
        states, changed = layer.kept.shape[1], max(changed, layer.changed, key=("none", "readout", "all").index)
    return Claim(np.zeros((old.sets, 0), int) if kept is None else kept, changed)


def _wrong_indices(kept: np.ndarray, sets: int, states: int) -> str | None:
    if kept.shape[0] != sets:
        return f"the record has {kept.shape[0]} rows of kept states for {sets} index sets"
    if kept.size and (kept.min() < 0 or kept.max() >= states):
        return f"the record keeps state {kept.min() if kept.min() < 0 else kept.max()} of {states} (0 to {states - 1})"
    if (np.diff(kept, axis=1) <= 0).any():
        return "the record's kept states are not in ascending order, each once"
    return None


def _checked(claim: Claim, old: System, new: System) -> Claim:
    for what, width in old.form.items():
        if new.form.get(what) != width:
            return Claim(claim.kept, claim.changed, f"it has {new.form.get(what)} {what}, not {width}")
    if claim.states > new.states:
        return Claim(claim.kept, claim.changed, f"{claim.states} states are said to stay, the layer has {new.states}")
    if not engine_of(new).inert(new)[:, claim.states :].all():
        return Claim(claim.kept, claim.changed, f"states beyond the {claim.states} kept ones are not inert")
    return claim


def _by_dynamics(old: System, new: System) -> Claim:
    """The states whose dynamics are those of `new`."""
    kept = engine_of(old).locate(old, new)
    if isinstance(kept, str):
        return Claim(np.zeros((old.sets, 0), int), None, kept)
    return Claim(kept, None)
