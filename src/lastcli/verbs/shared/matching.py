"""Which states of ORIGINAL a layer of PRUNED claims to hold: by PRUNED's record, else by equal poles and input maps.

A claim is where a proof begins (`lastcli.verbs.shared.proof`); nothing here is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lastcli.engine.system import DiagonalSystem
from lastcli.model.checkpoint import Checkpoint
from lastcli.verbs.shared.record import Record

__all__ = ["Claim", "first_states", "match_layers"]

# Two ways to the same pole agree to this part of its distance from the unit circle, whatever dtype lies between.
_RELATIVE = 1e-3


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
        claim = _by_record(old, index, steps) if steps else _by_poles(old, new)
        claims.append(claim if claim.wrong else _checked(claim, old, new))
    return claims


def _by_record(old: DiagonalSystem, index: int, steps: Sequence[Record]) -> Claim:
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


def _checked(claim: Claim, old: DiagonalSystem, new: DiagonalSystem) -> Claim:
    widths = ("groups", "inputs", "outputs", "directions", "modes", "sets")
    for width in widths:
        if getattr(old, width) != getattr(new, width):
            return Claim(claim.kept, claim.changed, f"it has {getattr(new, width)} {width}, not {getattr(old, width)}")
    if claim.states > new.states:
        return Claim(claim.kept, claim.changed, f"{claim.states} states are said to stay, the layer has {new.states}")
    rest = claim.states * new.modes
    if bool(np.any(new.B[:, rest:]) and np.any(new.C[..., rest:])):
        return Claim(claim.kept, claim.changed, f"states beyond the {claim.states} kept ones are not inert")
    return claim


def first_states(system: DiagonalSystem, count: int) -> DiagonalSystem:
    """The first `count` states of every group: what is not inert in a padded layer."""
    width = count * system.modes
    return system.replace(poles=system.poles[:, :width], B=system.B[:, :width], C=system.C[..., :width])


def _by_poles(old: DiagonalSystem, new: DiagonalSystem) -> Claim:
    """Indices of `old` whose poles and inputs are those of `new`, in ascending order as prune writes them."""
    if (old.groups, old.modes, old.inputs) != (new.groups, new.modes, new.inputs):
        return Claim(np.zeros((old.sets, 0), int), None, "the layer has another width")
    live = np.any(new.B != 0, axis=2) & np.any(new.C != 0, axis=(1, 2))
    width = int(live.any(axis=0).reshape(-1, new.modes).any(axis=1).sum())
    kept = np.zeros((old.sets, width), int)
    for group in range(old.sets):
        position = 0
        for state in range(width):
            wanted = slice(state * new.modes, (state + 1) * new.modes)
            while position < old.states:
                own = slice(position * old.modes, (position + 1) * old.modes)
                same = poles_agree(old.poles[group, own], new.poles[group, wanted]) and _inputs_agree(
                    old.B[group, own], new.B[group, wanted]
                )
                position += 1
                if same:
                    break
            else:
                return Claim(kept, None, "its poles are not ORIGINAL's, and no record says what was done")
            kept[group, state] = position - 1
    return Claim(kept, None)


def poles_agree(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two sets of poles are the same, each measured by its own distance 1 - |λ| from the unit circle."""
    distance = np.abs(1 - np.abs(first))
    return first.shape == second.shape and bool(
        (np.abs(first - second) <= _RELATIVE * np.maximum(distance, 1e-300)).all()
    )


def _inputs_agree(first: np.ndarray, second: np.ndarray) -> bool:
    scale = float(np.abs(first).max(initial=0.0))
    return bool(np.abs(first - second).max(initial=0.0) <= _RELATIVE * max(scale, 1e-30))
