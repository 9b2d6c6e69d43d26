"""Pole refit: the poles, B, C and D of a reduced layer are identified anew from the signals it meets.

The error ‖y - W f(λ, B) - D u‖² is linear least squares in the read-out, so C and D are solved in closed form inside
every evaluation and only poles and B are searched (variable projection, Golub and Pereyra 1973). A pole is
exp(-exp(ρ) + iφ), stable whatever the search does. The search variables are scaled so that a unit step in any of them
changes the output about equally; without that the poles near the unit circle would decide the step of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lastcli.engine.descent import minimise
from lastcli.engine.features import readout_of, readout_to_C
from lastcli.engine.levenberg import levenberg_marquardt
from lastcli.engine.pole_variables import Anchor, anchor_of, moved_system
from lastcli.engine.poles_linearised import linearise
from lastcli.engine.poles_projected import Projected, Rows, own_error, read_out
from lastcli.engine.precision import in_float64
from lastcli.engine.readout import direct_part, row_errors, solve_readout
from lastcli.engine.signals import (
    Signals,
    divide_signals,
    load_signals,
    relative_errors,
    signal_moments,
    with_ridge,
)
from lastcli.engine.system import DiagonalSystem, Reduction, feedthrough_of, sum_by_set
from lastcli.errors import UnsupportedModelError

__all__ = ["refit_poles"]

Array = Any

# Gauss-Newton steps cost more than gradient steps and go further.
_STEP_SHARE = 5


@in_float64
def refit_poles(
    system: DiagonalSystem,
    reduction: Reduction,
    signals: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    held_back: float = 0.2,
    steps: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> Reduction:
    """Poles, B, C and D of a reduced layer that reproduce the target best; never worse than where it started.

    Args:
        system: the original layer: says what D the format holds.
        reduction: where to start: any method's kept states, refitted or not, or balanced truncation.
        signals: (u, target, weights) batch by batch, as `layer_signals` yields: u (n, L, F), target (n, L, p) or
            head-major (n, L, p·G), weights (n, L).
        held_back: share of the sequences that only decide when to stop.
        steps: most iterations of the search.
        progress: called with (iterations done, `steps`).

    Returns:
        A `Reduction` with changed = "all", or the one it started from where nothing better was found.

    Raises:
        UnsupportedModelError: poles that cannot be moved: fixed by the format, or several to a state and bound to each
            other.
        InputError: no signals.
    """
    if system.modes != 1:
        raise UnsupportedModelError("The poles of oscillators are bound in pairs and cannot be refitted one by one.")
    if system.fixed_poles:
        raise UnsupportedModelError("The poles of the layer are fixed by its format; use a refit of the read-out.")
    start = reduction.system
    if start.states == 0:
        return reduction
    everything = load_signals(start, signals)
    direct, D = direct_part(system), np.asarray(feedthrough_of(system))
    z, anchor = _search(start, D, everything, held_back, steps, direct, progress)
    refitted = _closed_form(z, anchor, start, D, with_ridge(everything, start), direct)
    return _better(reduction, refitted, everything)


def _search(
    start: DiagonalSystem,
    D: np.ndarray,
    everything: Signals,
    held_back: float,
    steps: int,
    direct: str,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, Anchor]:
    """The search variables (S, dim) with the smallest held-back error, and what they are variables of."""
    fit, held = divide_signals(everything, held_back)
    fit = with_ridge(fit, start)
    anchor = anchor_of(start, fit)
    model: dict[str, Any] = {"anchor": anchor, "base": start, "D": D, "fit": fit, "held": held, "direct": direct}
    z = np.zeros(anchor.shape)
    if anchor.by_B is None:
        # Few variables a channel and no B: the Gauss-Newton matrix comes from second moments.
        most, told = max(steps // _STEP_SHARE, 1), _scaled(progress, steps)
        return levenberg_marquardt(partial(_on_host, linearise, model), z, steps=most, progress=told).best, anchor
    evaluate = Projected(**model) if _by_numpy(start) else partial(_on_host, _evaluate, model)
    return minimise(evaluate, z, steps=steps, progress=progress).best, anchor


def _by_numpy(system: DiagonalSystem) -> bool:
    """Whether the layer is searched by `poles_projected`."""
    return not system.multi and jax.default_backend() == "cpu"


@partial(jax.jit, static_argnames="direct")
def _evaluate(
    z: Array, *, anchor: Anchor, base: DiagonalSystem, D: Array, fit: Signals, held: Signals, direct: str
) -> tuple[Array, Array, Array]:
    """Errors (S,), their gradients (S, dim), and the errors (S,) of the same read-outs on the held-back part."""

    def total(z: Array) -> tuple[Array, tuple[Array, Array]]:
        moved = moved_system(z, anchor, base)
        moments = signal_moments(moved, D, fit)
        # At the minimum over the read-out its own derivative drops out (envelope theorem).
        W, change = jax.lax.stop_gradient(solve_readout(moments, direct))
        values = relative_errors(row_errors(moments, W, change), moments.energy, base.sets)
        others = jax.lax.stop_gradient(signal_moments(moved, D, held))
        return values.sum(), (values, relative_errors(row_errors(others, W, change), others.energy, base.sets))

    (_, (values, unseen)), gradient = jax.value_and_grad(total, has_aux=True)(z)
    return values, gradient, unseen


def _on_host(function: Callable[..., tuple[Array, ...]], model: dict[str, Any], z: np.ndarray) -> Any:
    return tuple(np.asarray(value) for value in function(z, **model))


def _scaled(progress: Callable[[int, int], None] | None, steps: int) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, most: progress(done * steps // most, steps)


def _closed_form(
    z: np.ndarray, anchor: Anchor, start: DiagonalSystem, D: np.ndarray, signals: Signals, direct: str
) -> DiagonalSystem:
    """The system at z with the read-out that fits all signals."""
    moved = moved_system(z, anchor, start)
    if _by_numpy(start):
        C, change = read_out(moved, Rows.of(signals, D), direct)
    else:
        W, change = solve_readout(jax.tree.map(np.asarray, _moments_jit(moved, D, signals)), direct)
        C = readout_to_C(W, start)
    return moved.replace(C=C, D=start.D if direct == "none" else D + change)


_moments_jit = jax.jit(signal_moments)


def _errors(systems: Sequence[DiagonalSystem], signals: Signals) -> list[np.ndarray]:
    """E‖y - ŷ‖² of every set (S,), one array a system; all of one form."""
    none = np.zeros_like(np.asarray(feedthrough_of(systems[0])))
    if _by_numpy(systems[0]):
        rows = Rows.of(signals, none)
        return [np.array([own_error(system, rows, none)]) for system in systems]
    found = []
    for system in systems:
        moments = jax.tree.map(np.asarray, _moments_jit(system, none, signals))
        errors = row_errors(moments, readout_of(system), np.asarray(feedthrough_of(system)))
        found.append(np.asarray(sum_by_set(errors.sum(axis=1), system.sets)))
    return found


def _better(reduction: Reduction, refitted: DiagonalSystem, signals: Signals) -> Reduction:
    """Per set, whichever of the two systems leaves the smaller error."""
    start = reduction.system
    groups = np.arange(start.groups)
    found, before = _errors([refitted, start], signals)
    improved = found < before
    if not improved.any():
        return reduction
    pick = improved[groups % start.sets]

    def choose(new: Any, old: Any) -> Any:
        return np.where(pick.reshape(-1, *[1] * (np.ndim(new) - 1)), new, old)

    D = refitted.D if refitted.D is None else choose(refitted.D, feedthrough_of(start))
    chosen = start.replace(
        poles=choose(refitted.poles, start.poles),
        B=choose(refitted.B, start.B),
        C=choose(refitted.C, start.C),
        D=D,
    )
    return Reduction(kept=reduction.kept, system=chosen, changed="all")
