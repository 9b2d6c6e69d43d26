"""`DiagonalSystem`: one linear time-invariant layer in discrete time.

One layer is a bank of G independent diagonal systems ("groups") of equal size::

    x[k] = poles ∘ x[k-1] + B u[k]                     (forward; backward: the same with k+1)
    y[k] = s · Σ_d Re(C_d x_d[k - delay]) + D u[k]     s = pairing

A MIMO layer (S5, LRU) is one group with all inputs and outputs. A multi-SISO layer (S4D, S4, DSS) is G = H groups
with one input each. Both share one code path: every array has the group axis first.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lastcli.engine.protocol import Reduction
from lastcli.errors import UnsupportedModelError

__all__ = ["DiagonalSystem", "Reduction", "active_states", "diagonal", "feedthrough_of", "sum_by_set"]

Array = Any  # numpy.ndarray or jax.Array: the same fields hold host data and traced values


@dataclass(frozen=True)
class DiagonalSystem:
    """A discrete-time diagonal layer; a JAX pytree (`engine.pytrees`).

    Attributes:
        poles: (G, N·modes) complex, the discrete eigenvalues λ.
        B: (G, N·modes, m) complex, the discretised input map.
        C: (G, R, p, N·modes) complex, one read-out for each direction: R = 1, or 2 for forward and backward scans.
        D: (G, p, m) real feedthrough, or None where the model has none.
        pairing: 2 where each stored state stands for a conjugate pair (output 2·Re), else 1.
        delay: 1 where the output reads the state before the update, else 0.
        modes: poles per stored state, adjacent in the arrays (2 for oscillators such as LinOSS). A stored state is
            what is kept or dropped as one.
        sets: number of independent index sets, a divisor of G. Group g belongs to set g % sets. MIMO: 1.
            Multi-SISO with its own states in every channel: G. Poles tied over all channels: 1.
        feedthrough: what D the checkpoint format can hold: "none", "diagonal" (the (p, m) block is diagonal) or
            "dense". A refit may only put into D what the format can hold.
        shared_readout: whether the modes of a stored state are read by one C, because the checkpoint has one only: C is
            equal in them, and a refit keeps it so (LinOSS).
        multi: whether the group axis is part of the model (multi-SISO); results are then reported per set.
        fixed_poles: whether the checkpoint format can only hold the poles and B that are there, or some of them: no
            method or refit may move them.
        real_readout: whether the checkpoint format holds the real part of C only; a refit keeps C real.
    """

    kind: ClassVar[str] = "diagonal"
    time_invariant: ClassVar[bool] = True

    poles: Array
    B: Array
    C: Array
    D: Array | None = None
    pairing: int = 1
    delay: int = 0
    modes: int = 1
    sets: int = 1
    feedthrough: str = "none"
    multi: bool = False
    shared_readout: bool = False
    fixed_poles: bool = False
    real_readout: bool = False

    @property
    def groups(self) -> int:
        """G, the number of independent systems."""
        return int(self.poles.shape[0])

    @property
    def states(self) -> int:
        """N, the stored states of one group."""
        return int(self.poles.shape[1]) // self.modes

    @property
    def inputs(self) -> int:
        """m, the inputs of one group."""
        return int(self.B.shape[2])

    @property
    def outputs(self) -> int:
        """p, the outputs of one group."""
        return int(self.C.shape[2])

    @property
    def directions(self) -> int:
        """R, the number of scan directions: 1 or 2."""
        return int(self.C.shape[1])

    @property
    def bidirectional(self) -> bool:
        """Whether there is a backward scan."""
        return self.directions == 2

    @property
    def stored_states(self) -> int:
        """States this layer counts with in the budget: sets · N."""
        return self.sets * self.states

    @property
    def width(self) -> int:
        """Inputs or outputs of all groups, whichever are more."""
        return self.groups * max(self.inputs, self.outputs)

    @property
    def drivable(self) -> bool:
        """B is fixed; what drives the states moves with the poles alone."""
        return False

    @property
    def form(self) -> dict[str, int]:
        """What a reduction never changes."""
        return {key: getattr(self, key) for key in ("groups", "inputs", "outputs", "directions", "modes", "sets")}

    def replace(self, **changes: Any) -> DiagonalSystem:
        """A copy with the given fields changed."""
        return dataclasses.replace(self, **changes)


def diagonal(system: Any) -> DiagonalSystem:
    """A layer that has poles, norms and an impulse response.

    Raises:
        UnsupportedModelError: its step, B and C depend on the input.
    """
    if not isinstance(system, DiagonalSystem):
        raise UnsupportedModelError(
            "The layer is selective: its step, B and C depend on the input, so it has no poles, no norms and no "
            "response to white noise; measure it on inputs with --calibration (obs, contribution)."
        )
    return system


def active_states(system: DiagonalSystem, groups: slice = slice(None)) -> np.ndarray:
    """(G, N·modes) bool, or of some groups: states both driven and read; the others are not part of the response."""
    B, C = system.B[groups], system.C[groups]
    return (np.abs(B).max(axis=2, initial=0) > 0) & (np.abs(C).max(axis=(1, 2), initial=0) > 0)


def feedthrough_of(system: DiagonalSystem) -> Array:
    """D (G, p, m), zeros where the model has none."""
    return np.zeros((system.groups, system.outputs, system.inputs)) if system.D is None else system.D


def sum_by_set(values: Array, sets: int) -> Array:
    """Sums (sets, ...) over the groups of each set, of values (G, ...): group g belongs to set g % sets."""
    return values.reshape(-1, sets, *values.shape[1:]).sum(axis=0)
