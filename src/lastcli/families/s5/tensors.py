"""What S5, Event-SSM and s5-pytorch layers have in common: a continuous-time diagonal MIMO system with learned steps.

One function each for decoding to the discrete system, for dropping and padding states of a stored tensor, and for
going back from discrete poles to stored parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Layer
from lastcli.families.parts.discretise import continuous, discrete

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem

__all__ = ["CLIP", "Stored", "cast", "inverse_dynamics", "pair", "regather", "stored_complex", "to_system", "unpair"]

# S5's `clip_eigs` keeps the real parts of continuous poles at or below this.
CLIP = -1e-4


@dataclass(frozen=True)
class Stored:
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


def pair(values: np.ndarray) -> np.ndarray:
    """complex (...) → real (..., 2)."""
    return np.stack([values.real, values.imag], axis=-1)


def unpair(values: np.ndarray) -> np.ndarray:
    """Real (..., 2) of any precision, or complex (...) → complex128 (...)."""
    if np.iscomplexobj(values):
        return values.astype(np.complex128)
    wide = np.asarray(values).astype(np.float64)
    return wide[..., 0] + 1j * wide[..., 1]


def stored_complex(values: np.ndarray, old: np.ndarray, name: str) -> np.ndarray:
    """Complex values in the form of the tensor they replace: complex, or real with a last axis of two."""
    return cast(values if np.iscomplexobj(old) else pair(values), old.dtype, name)


def regather(
    values: np.ndarray, axis: int, states: int, kept: np.ndarray, size: int, fill: complex = 0.0
) -> np.ndarray:
    """The kept states of a stored tensor, bit for bit, then inert ones.

    Args:
        values: any dtype; `axis` holds one or more blocks of `states` entries (two in a bidirectional S5's joint C).
        kept: (K,) indices inside a block.
        size: entries of every block afterwards, at least K.
        fill: what an inert state holds.
    """
    blocks = np.split(values, values.shape[axis] // states, axis=axis)
    padding = list(values.shape)
    padding[axis] = size - len(kept)
    inert = np.full(padding, fill, dtype=values.dtype)
    return np.ascontiguousarray(
        np.concatenate([part for block in blocks for part in (np.take(block, kept, axis=axis), inert)], axis=axis)
    )


def cast(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """New values in the tensor's own dtype.

    Raises:
        UnsupportedModelError: the dtype cannot hold them (float16 ends at 65504).
    """
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(values).astype(dtype)
    if not np.isfinite(stored.astype(np.complex128)).all():
        raise UnsupportedModelError(
            f"{name}: the new values do not fit into {dtype.name}; use a method that keeps the poles, or convert the "
            "checkpoint to float32 first."
        )
    return stored


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
