"""What S5, Event-SSM and s5-pytorch layers have in common: a continuous-time diagonal MIMO system with learned steps.

From its parameters to the discrete system, and from discrete poles back to poles and steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Layer
from lastcli.families.parts.discretise import continuous, discrete

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem

__all__ = ["CLIP", "Stored", "inverse_dynamics", "to_system"]

# S5's `clip_eigs` keeps the real parts of continuous poles at or below this.
CLIP = -1e-4


class Stored(NamedTuple):
    """A layer's parameters decoded to float64 / complex128, before the discretisation.

    Attributes:
        poles: (P,) complex, continuous.
        step: (P,) positive step sizes, rescaling included.
        time: time between two inputs in units of the step.
        B: (P, H_in) complex.
        C: (R, H_out, P) complex.
        D: (H_out, H_in) real.
    """

    poles: np.ndarray
    step: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    time: float = 1.0


def to_system(stored: Stored, rule: str, pairing: int, feedthrough: str) -> DiagonalSystem:
    """The layer in discrete time."""
    from lastcli.engine.system import DiagonalSystem

    poles, gain = discrete(np, rule, stored.poles, stored.step, stored.time)
    return DiagonalSystem(
        poles=poles[None],
        B=(gain[:, None] * stored.B)[None],
        C=stored.C[None],
        D=stored.D[None],
        pairing=pairing,
        feedthrough=feedthrough,
    )


def inverse_dynamics(
    layer: Layer, rule: str, poles: np.ndarray, delta: np.ndarray, limit: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Continuous poles and step sizes Δ that discretise to the given poles.

    Args:
        layer: named in errors.
        rule: as in `discretise.RULES`.
        poles: (K,) discrete.
        delta: (K,) present step sizes; kept where possible.
        limit: the largest real part that the model lets a pole have; a slower pole gets a smaller step.

    Raises:
        UnsupportedModelError: a pole that no step can represent; names the layer and the state.
    """
    a = continuous(rule, poles, delta)
    if limit is not None:
        # Re(a)·Δ is fixed by the pole, so a smaller step makes a larger decay rate; twice the limit survives rounding.
        rate = a.real * delta
        slow = a.real > 2 * limit
        delta = np.where(slow & (rate < 0), np.minimum(delta, rate / (2 * limit)), delta)
        a = np.where(slow, continuous(rule, poles, delta), a)
    wrong = ~np.isfinite(a)
    if limit is not None:
        wrong |= a.real > limit
    if wrong.any():
        state = int(np.flatnonzero(wrong)[0])
        raise UnsupportedModelError(
            f"{layer.name}: the new pole {poles[state]:.6g} of state {state} cannot be written with {rule} "
            f"discretisation{'' if limit is None else ' and clipped eigenvalues'}; use a method that keeps the poles."
        )
    return a, delta
