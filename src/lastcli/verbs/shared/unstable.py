"""States with |λ| >= 1: named in a warning and in the document of every verb that ranks or removes states."""

from __future__ import annotations

import numpy as np

from lastcli.engine.state_norms import horizon_energy
from lastcli.engine.system import diagonal
from lastcli.reduction.compressor import Compressor
from lastcli.results import UnstableStates

__all__ = ["unstable_note", "unstable_states"]

_SHOWN = 5
# Where no inputs say how long a sequence is.
_STEPS = 1000


def unstable_states(compressor: Compressor) -> tuple[UnstableStates, ...]:
    """The states of every layer that has any, with their energy over the length of the calibration inputs."""
    found = []
    systems = dict(zip(compressor.names, compressor.systems))
    inputs = compressor.calibration
    steps = _STEPS if inputs is None else int(inputs.x.shape[2 if inputs.x.ndim == 4 else 1])
    if compressor.recorded is not None:
        steps = compressor.recorded.steps or _STEPS
    for name, mask, largest in compressor.unstable:
        places = np.argwhere(mask)
        states = [int(place[1]) if mask.shape[0] == 1 else [int(i) for i in place] for place in places]
        energy = horizon_energy(diagonal(systems[name]), steps)[mask]
        found.append(
            UnstableStates(
                layer=name, states=tuple(states), largest=largest, energy=tuple(map(float, energy)), steps=steps
            )
        )
    return tuple(found)


def unstable_note(compressor: Compressor) -> str | None:
    """One sentence about them, or None where there are none."""
    found = unstable_states(compressor)
    if not found:
        return None
    count = sum(len(layer.states) for layer in found)
    shown = "; ".join(
        f"{layer.layer}, state {', '.join(str(state) for state in layer.states[:_SHOWN])}"
        + (" and more" if len(layer.states) > _SHOWN else "")
        for layer in found[:_SHOWN]
    )
    kept = "kept, since their norm is not finite" if compressor.pins_unstable else "taken by the published formula"
    return (
        f"Warning: {count} state{'' if count == 1 else 's'} with |λ| >= 1 ({shown}; largest "
        f"{max(layer.largest for layer in found):.6g}): {kept}. Check the discretisation options; --refuse-unstable "
        "refuses such a model."
    )
