"""What a state of a selective layer is worth.

Measured: `contribution`, the energy of C_n h_n behind the gate and the last projection (GHOST's score). Norms exist
only for a frozen layer: `hinf` and `h2` take the mean step of the calibration inputs (that of the bias without any) and
the mean squares of B and C, or their rows' norms. They are baselines, not more. In SSD all states of a head have one
pole, so both rank like ‖B_n‖²‖C_n‖².
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lastcli.engine.criteria import Criterion, needed, random
from lastcli.engine.selective.system import S6HeadsSystem, S6System, SelectiveSystem, SSDSystem

__all__ = ["CRITERIA", "contribution", "h2", "hinf", "magnitude", "mean_poles"]

Moments = Callable[[], Any] | None


def contribution(system: SelectiveSystem, *, moments: Moments = None) -> np.ndarray:
    """E[Σ_d (silu(z_d) ‖W_o,d‖ C_n h_d,n)²], (sets, N).

    Raises:
        UsageError: there are no calibration inputs.
    """
    return np.asarray(needed(moments).contribution)


def magnitude(system: SelectiveSystem, *, parameters: np.ndarray | None = None) -> np.ndarray:
    """Sum of squares of the stored parameters of each state, (sets, N); without them, of its rows of B and C."""
    if parameters is not None:
        return np.asarray(parameters, np.float64).reshape(system.sets, system.states)
    B, C = _rows(system)
    return B + C


def hinf(system: SelectiveSystem, *, compat: bool = False, moments: Moments = None) -> np.ndarray:
    """Squared H∞ norms of the channels at the mean step, summed, (sets, N)."""
    poles, strength = _frozen(system, moments)
    return _summed(system, strength / (1 - poles) ** 2)


def h2(system: SelectiveSystem, *, compat: bool = False, moments: Moments = None) -> np.ndarray:
    """Squared H2 norms of the channels at the mean step, summed, (sets, N)."""
    poles, strength = _frozen(system, moments)
    return _summed(system, strength / (1 - poles**2))


def mean_poles(system: SelectiveSystem, step: np.ndarray | None = None) -> np.ndarray:
    """exp(δ A): (d, N), or (heads, 1) of SSD; at the step that the bias alone gives where none is named."""
    if not isinstance(system, (S6System, S6HeadsSystem, SSDSystem)):
        raise TypeError(type(system))
    bias = np.asarray(system.step_bias, np.float64).reshape(-1)
    step = np.logaddexp(0.0, bias) if step is None else step
    return np.exp(np.asarray(step)[:, None] * np.asarray(system.A, np.float64).reshape(len(bias), -1))


def _rows(system: Any) -> list[np.ndarray]:
    """Squared norms of the rows that make B and C, (sets, N) each."""
    shape = (system.sets, system.states, -1)
    return [(np.asarray(array, np.float64).reshape(shape) ** 2).sum(axis=2) for array in (system.to_B, system.to_C)]


def _frozen(system: Any, moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Poles (d, N) or (heads, N), and in the same shape what the input of the frozen system reaches its output by."""
    found = None if moments is None else moments()
    step = np.logaddexp(0.0, np.asarray(system.step_bias, np.float64).reshape(-1)) if found is None else found.step
    B, C = _rows(system) if found is None else found.power
    poles = np.broadcast_to(mean_poles(system, step), (len(step), system.states))
    by_set = np.repeat(B * C, len(step) // system.sets, axis=0)
    return poles, step[:, None] ** 2 * by_set


def _summed(system: SelectiveSystem, values: np.ndarray) -> np.ndarray:
    return values.reshape(system.sets, -1, system.states).sum(axis=1)


CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion("contribution", "energy of what a state alone adds to the outputs", "GHOST", contribution,
                  ("moments",)),
        Criterion("magnitude", "sum of squares of a state's parameters", "", magnitude, ("parameters",)),
        Criterion("random", "uniform draws, the baseline of every comparison", "", random, ("seed",)),
        Criterion("hinf", "H-infinity energy at the mean step", "arXiv 2411.02824", hinf, ("compat", "moments")),
        Criterion("h2", "H2 energy at the mean step", "arXiv 2602.00534", h2, ("compat", "moments")),
    )
}  # fmt: skip
