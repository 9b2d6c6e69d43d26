"""The engine of selective layers, as `protocol.Engine` asks for it; imports none of JAX until it is called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from lastcli.engine import criteria
from lastcli.engine.protocol import Reduction, Signals
from lastcli.engine.selective import shapes
from lastcli.engine.selective.criteria import CRITERIA, mean_poles
from lastcli.engine.selective.system import S6HeadsSystem, S6System, SelectiveSystem, SSDSystem
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

# What a refit of the read-out changes. In SSD the rows that make B and C pass a convolution together and are fitted
# together, so that nothing is a read-out alone.
_READOUT = ("to_C", "D", "out_proj")

truncate = shapes.truncate
embed = shapes.embed
inert = shapes.inert


def energies(system: SelectiveSystem, criterion: str | Callable[..., np.ndarray], **given: Any) -> np.ndarray:
    """See `engine.criteria.energies`, with the criteria of `selective.criteria`."""
    return criteria.energies(system, criterion, known=CRITERIA, **given)


def check(system: SelectiveSystem, name: str, allow: bool) -> None:
    """Refuse values that are not finite; A = -exp(A_log) is always stable.

    Raises:
        InputError: an array holds NaN or infinity.
    """
    for field in dataclasses.fields(system):
        value = getattr(system, field.name)
        if isinstance(value, np.ndarray) and not np.isfinite(value).all():
            raise InputError(f"Layer {name}: {field.name} holds NaN or infinite values; the checkpoint is damaged.")


def unstable(system: SelectiveSystem, margin: float) -> np.ndarray:
    """None of them: exp(δ A) lies between 0 and 1 for every step."""
    return np.zeros((system.sets, system.states), bool)


def as_precision(system: SelectiveSystem, real: Any) -> Any:
    """See `shapes.as_precision`; where systems become arguments of programs, they become pytrees."""
    import lastcli.engine.selective.pytrees  # noqa: F401

    return shapes.as_precision(system, real)


def recurrent(system: SelectiveSystem) -> Any:
    """The mixer as it is: `step.step` takes it."""
    return system


def empty_moments(system: SelectiveSystem) -> Any:
    """See `moments.empty_moments`."""
    from lastcli.engine.selective import moments

    return moments.empty_moments(system)


def accumulate(moments: Any, system: SelectiveSystem, u: Array, weights: Array, target: Array | None = None) -> Any:
    """See `moments.accumulate`."""
    from lastcli.engine.selective import moments as module

    return module.accumulate(moments, system, u, weights, target)


def eliminate(system: SelectiveSystem, moments: Any) -> Any:
    """Elimination with the read-out folded; of SSD, and where norms couple the states, by what states contribute.

    There nothing linear is left to re-solve: elimination without the fit that follows loses to the plain score.
    """
    from lastcli.engine.selective import readout

    if _folds(system):
        return readout.eliminate(system, moments)  # type: ignore[arg-type]
    return readout.by_contribution(moments)


def exchange(system: SelectiveSystem, kept: np.ndarray, moments: Any, pinned: np.ndarray | None) -> np.ndarray:
    """Kept states after the swaps that lower the refitted error; as they are where nothing is re-solved."""
    from lastcli.engine.selective import readout

    return readout.exchange(system, kept, moments, pinned) if _folds(system) else kept  # type: ignore[arg-type]


def refit(system: SelectiveSystem, kept: np.ndarray, moments: Any, signals: Signals) -> Reduction:
    """The kept states with their read-out folded (S6), and all that the format can hold fitted to `signals`."""
    from lastcli.engine.selective import fit, readout

    if isinstance(system, SSDSystem):
        fitted = fit.fit_layer(truncate(system, kept).system, signals)
        return Reduction(np.asarray(kept), fitted, "all")
    if not isinstance(system, S6System):
        raise TypeError(type(system))
    reduced = readout.fold(system, kept, moments) if _folds(system) else truncate(system, kept).system
    return Reduction(np.asarray(kept), fit.fit_projection(reduced, signals), "readout")


def refit_on_signals(
    system: SelectiveSystem,
    kept: np.ndarray,
    moments: Callable[[], Any],
    signals: Signals,
    reselect: bool,
    pinned: np.ndarray | None,
) -> Reduction:
    """`refit` to the targets of `signals`; with `reselect` of the states that elimination leaves on them."""
    found = moments() if _folds(system) or reselect else None
    if reselect:
        count = kept.shape[1]
        order = eliminate(system, found).order
        kept = exchange(system, np.sort(order[:, system.states - count :], axis=1), found, pinned)
    return refit(system, kept, found, signals)


def _folds(system: SelectiveSystem) -> bool:
    return isinstance(system, S6System) and not system.normed


def output(system: SelectiveSystem, u: np.ndarray) -> np.ndarray:
    """The mixer's answer in float64, (n, L, H)."""
    from lastcli.engine.selective.mixer import answer

    return answer(system, u)


def variables(system: SelectiveSystem) -> Any:
    """See `variables.selective_variables`."""
    from lastcli.engine.selective.variables import selective_variables

    return selective_variables(system)


def moved(before: Reduction, system: SelectiveSystem) -> str:
    """Everything is free in gradient descent."""
    return "all"


def stored(original: SelectiveSystem, reduction: Reduction, read: Any) -> Any:
    """What was read back: every array is stored as it is, A as a logarithm."""
    own = reduction.system
    if reduction.changed != "all" and np.allclose(read.A, own.A, rtol=1e-12, atol=0):
        return read.replace(A=own.A)
    return read


def distance(first: SelectiveSystem, second: SelectiveSystem) -> float:
    """Root mean square difference of the answers to one and the same noise, relative to the first's."""
    u = np.random.default_rng(0).standard_normal((4, 64, first.inputs))
    wanted, got = output(first, u), output(second, u)
    scale = float((wanted**2).sum())
    return float(np.sqrt(((wanted - got) ** 2).sum() / scale)) if scale > 0 else float(np.abs(got).max(initial=0.0))


def same_dynamics(first: SelectiveSystem, second: SelectiveSystem, relative: float) -> bool:
    """Whether everything but the read-out agrees."""
    skip = _readout(first)
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if field.name in skip or (one is None and other is None):
            continue
        if (one is None) != (other is None) or np.shape(one) != np.shape(other):
            return False
        scale = float(np.abs(one).max(initial=0.0)) if np.size(one) and np.isfinite(one).all() else 0.0
        if one is other or np.array_equal(one, other):
            continue
        if float(np.abs(np.subtract(one, other)).max(initial=0.0)) > relative * max(scale, 1e-30):
            return False
    return True


def with_dynamics(system: SelectiveSystem, other: SelectiveSystem) -> Any:
    """`system`'s read-out on `other`'s states."""
    return other.replace(**{name: getattr(system, name) for name in _READOUT})


def other_readout(system: SelectiveSystem) -> Any:
    """The system with every number that a refit of the read-out may change changed."""
    names = _readout(system)
    return system.replace(**{name: 0.5 * np.asarray(getattr(system, name)) + 1.0 for name in names})


def _readout(system: SelectiveSystem) -> tuple[str, ...]:
    return ("D", "out_proj") if isinstance(system, SSDSystem) else _READOUT


def locate(old: Any, new: Any) -> np.ndarray | str:
    """States of `old` that have the rows of B (and columns of A) of `new`, in ascending order."""
    if type(old) is not type(new) or old.form != new.form:
        return "the layer has another width"
    count = int((~inert(new)).sum(axis=1).max(initial=0))
    kept = np.zeros((old.sets, count), int)
    first, second = _signatures(old), _signatures(new)
    for group in range(old.sets):
        position = 0
        for state in range(count):
            while position < old.states and not np.array_equal(first[group, position], second[group, state]):
                position += 1
            if position == old.states:
                return "its states are not ORIGINAL's, and no record says what was done"
            kept[group, state] = position
            position += 1
    return kept


def _signatures(system: Any) -> np.ndarray:
    """What drives each state, (sets, N, ...)."""
    if isinstance(system, S6System):
        return np.concatenate([np.asarray(system.to_B), np.asarray(system.A).T], axis=1)[None]
    if isinstance(system, S6HeadsSystem):
        return np.concatenate([np.asarray(system.to_B), np.swapaxes(np.asarray(system.A), 1, 2)], axis=2)
    return np.concatenate([np.asarray(system.to_B), np.asarray(system.conv_B)], axis=2)


def largest_pole(system: SelectiveSystem) -> float:
    """The largest exp(δ A) at the step that the bias alone gives."""
    return float(mean_poles(system).max(initial=0.0))
