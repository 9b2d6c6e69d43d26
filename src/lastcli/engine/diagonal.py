"""The engine of diagonal time-invariant layers, as `protocol.Engine` asks for it.

The mathematics is in the modules around; this one says which of them answers what. It imports none that needs JAX
until it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lastcli.engine import criteria
from lastcli.engine.protocol import Reduction, Signals
from lastcli.engine.system import DiagonalSystem, sum_by_set
from lastcli.errors import InputError

__all__ = [
    "CRITERIA",
    "accumulate",
    "as_precision",
    "check",
    "distance",
    "eliminate",
    "embed",
    "empty_moments",
    "energies",
    "exchange",
    "inert",
    "largest_pole",
    "locate",
    "moved",
    "other_readout",
    "output",
    "poles_agree",
    "recurrent",
    "refit",
    "refit_on_signals",
    "same_dynamics",
    "stored",
    "truncate",
    "unstable",
    "variables",
    "with_dynamics",
]

Array = Any

CRITERIA = criteria.CRITERIA

# Two values computed from the same bytes in another order of the array differ by no more.
_SAME = 8 * np.finfo(float).eps
# Two ways to the same pole agree to this part of its distance from the unit circle, whatever dtype lies between.
_RELATIVE = 1e-3


def energies(system: DiagonalSystem, criterion: str | Callable[..., np.ndarray], **given: Any) -> np.ndarray:
    """See `criteria.energies`."""
    return criteria.energies(system, criterion, **given)


def check(system: DiagonalSystem, name: str, allow: bool) -> None:
    """See `criteria.check_stable`."""
    criteria.check_stable([system], [name], allow)


def unstable(system: DiagonalSystem, margin: float) -> np.ndarray:
    """Which stored states have a pole with |λ| ≥ 1 + margin, (sets, N) bool."""
    return criteria.unstable([system], margin)[0]


def truncate(system: DiagonalSystem, kept: np.ndarray) -> Reduction:
    """See `embedding.truncate`."""
    from lastcli.engine import embedding

    return embedding.truncate(system, kept)


def embed(original: DiagonalSystem, reduction: Reduction, states: int | None = None) -> DiagonalSystem:
    """See `embedding.embed`."""
    from lastcli.engine import embedding

    return embedding.embed(original, reduction, states)


def as_precision(system: DiagonalSystem, real: Any) -> DiagonalSystem:
    """See `embedding.as_precision`; where systems become arguments of programs, they become pytrees."""
    import lastcli.engine.pytrees  # noqa: F401
    from lastcli.engine import embedding

    return embedding.as_precision(system, real)


def recurrent(system: DiagonalSystem) -> Any:
    """See `recurrence.recurrence`."""
    from lastcli.engine import recurrence

    return recurrence.recurrence(system)


def empty_moments(system: DiagonalSystem) -> Any:
    """See `moments.empty_moments`."""
    from lastcli.engine import moments

    return moments.empty_moments(system)


def accumulate(moments: Any, system: DiagonalSystem, u: Array, weights: Array, target: Array | None = None) -> Any:
    """See `moments.accumulate`."""
    from lastcli.engine import moments as module

    return module.accumulate(moments, system, u, weights, target)


def eliminate(system: DiagonalSystem, moments: Any) -> Any:
    """See `elimination.eliminate`."""
    from lastcli.engine import elimination

    return elimination.eliminate(system, moments)


def exchange(system: DiagonalSystem, kept: np.ndarray, moments: Any, pinned: np.ndarray | None) -> np.ndarray:
    """See `exchange.exchange`."""
    from lastcli.engine import exchange as module

    return module.exchange(system, kept, moments, pinned=pinned)


def refit(system: DiagonalSystem, kept: np.ndarray, moments: Any, signals: Signals) -> Reduction:
    """See `reductions.refit`: second moments are all it needs."""
    from lastcli.engine import reductions

    return reductions.refit(system, kept, moments)


def refit_on_signals(
    system: DiagonalSystem,
    kept: np.ndarray,
    moments: Callable[[], Any],
    signals: Signals,
    reselect: bool,
    pinned: np.ndarray | None,
) -> Reduction:
    """The read-out that fits the targets of `signals` best; with `reselect` of the states that do so best."""
    from lastcli.engine.exchange import select_states

    found = moments()
    if reselect:
        kept = select_states(system, found, kept.shape[1], pinned=pinned)
    return refit(system, kept, found, signals)


def output(system: DiagonalSystem, u: np.ndarray) -> np.ndarray:
    """The layer's answer in float64, (n, L, p) or head-major (n, L, p·G)."""
    from lastcli.engine.simulate import answer

    return answer(system, u)


def variables(system: DiagonalSystem) -> Any:
    """See `variables.layer_variables`."""
    from lastcli.engine.variables import layer_variables

    return layer_variables(system)


def moved(before: Reduction, system: DiagonalSystem) -> str:
    """Whether gradient descent moved poles or B; those of oscillators stay where they are."""
    old = before.system
    same = np.array_equal(system.poles, old.poles) and np.array_equal(system.B, old.B)
    return "readout" if same and before.changed != "all" else "all"


def stored(original: DiagonalSystem, reduction: Reduction, read: DiagonalSystem) -> DiagonalSystem:
    """The reduced system with the values read back.

    Poles and input maps that are the original's own bytes keep the original's values to the last bit, so that a kept
    pole beside the unit circle is not told apart from itself.
    """
    own = reduction.system
    # the form stays the reduction's: one compiled program serves the masked models of every ratio
    system = own.replace(poles=read.poles, B=read.B, C=read.C * (read.pairing / own.pairing), D=read.D)
    if reduction.changed != "all" and _near(system.poles, own.poles) and _near(system.B, own.B):
        system = system.replace(poles=own.poles, B=own.B)
        if reduction.changed == "none" and _near(system.C, own.C):
            system = system.replace(C=own.C, D=original.D)
    return system


def _near(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool((np.abs(first - second) <= _SAME * np.abs(second)).all())


def distance(first: DiagonalSystem, second: DiagonalSystem) -> float:
    """Relative H2 error, see `certificates.relative_h2_error`."""
    from lastcli.engine.certificates import relative_h2_error

    return relative_h2_error(first, second)


def same_dynamics(first: DiagonalSystem, second: DiagonalSystem, relative: float) -> bool:
    """Whether poles and B agree."""
    scale = float(np.abs(first.B).max(initial=0.0))
    near = bool(np.abs(first.B - second.B).max(initial=0.0) <= relative * max(scale, 1e-30))
    return near and poles_agree(first.poles, second.poles)


def with_dynamics(system: DiagonalSystem, other: DiagonalSystem) -> DiagonalSystem:
    """The read-out of `system` on the poles and B of `other`."""
    return system.replace(poles=other.poles, B=other.B)


def other_readout(system: DiagonalSystem) -> DiagonalSystem:
    """The system with another C and D."""
    eye = np.broadcast_to(np.eye(system.outputs, system.inputs), (system.groups, system.outputs, system.inputs))
    return system.replace(C=0.5 * system.C, D=None if system.D is None else 0.5 * system.D + eye)


def locate(old: DiagonalSystem, new: DiagonalSystem) -> np.ndarray | str:
    """States of `old` whose poles and inputs are those of `new`, in ascending order as they are written."""
    if (old.groups, old.modes, old.inputs) != (new.groups, new.modes, new.inputs):
        return "the layer has another width"
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
                return "its poles are not ORIGINAL's, and no record says what was done"
            kept[group, state] = position - 1
    return kept


def poles_agree(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two sets of poles are the same, each measured by its own distance 1 - |λ| from the unit circle."""
    if first.shape != second.shape:
        raise InputError(f"Poles of shapes {first.shape} and {second.shape} cannot be compared.")
    distances = np.abs(1 - np.abs(first))
    return bool((np.abs(first - second) <= _RELATIVE * np.maximum(distances, 1e-300)).all())


def _inputs_agree(first: np.ndarray, second: np.ndarray) -> bool:
    scale = float(np.abs(first).max(initial=0.0))
    return bool(np.abs(first - second).max(initial=0.0) <= _RELATIVE * max(scale, 1e-30))


def inert(system: DiagonalSystem) -> np.ndarray:
    """States that nothing drives or nothing reads, (sets, N) bool."""
    live = np.any(system.B != 0, axis=2) & np.any(system.C != 0, axis=(1, 2))
    by_state = live.reshape(system.groups, system.states, system.modes).any(axis=2)
    return sum_by_set(by_state.astype(int), system.sets) == 0


def largest_pole(system: DiagonalSystem) -> float:
    """The largest |λ|."""
    return float(np.abs(system.poles).max(initial=0.0))
