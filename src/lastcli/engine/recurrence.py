"""A diagonal layer run step by step: what it carries from one step to the next, and what it answers.

    x ← λ ∘ x + B u        y = s·Re(C x) + D u        (with `delay` y is read before x moves on)

The matrices stand ready in real numbers, so that a step is one product in, one elementwise update and one product out.
`simulate` of a `Recurrence` is the answer to one step, so a model's own code runs it like any other layer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.pytrees import DiagonalSystem
from lastcli.engine.scans import EXACT

__all__ = ["Recurrence", "State", "advance", "answer", "recurrence", "start"]

Array = Any


class State(NamedTuple):
    """What n sequences carry: real and imaginary parts, (n, G, P) each; P = N·modes."""

    re: Array
    im: Array


@dataclass(frozen=True)
class Recurrence:
    """A causal layer between two steps; a JAX pytree.

    Attributes:
        poles: (G, P) complex.
        drive: (G, m, 2P) real, B: first its real, then its imaginary part.
        read: (G, 2P, p) real, s·Re C over -s·Im C.
        D: (G, p, m) as in the system, or None.
        direct: (m,) the diagonal of a MIMO layer's D where that is all it has, else None.
        state: what the steps before left, None where nothing is run.
        delay, multi: as in `DiagonalSystem`.
    """

    poles: Array
    drive: Array
    read: Array
    D: Array | None
    direct: Array | None
    state: State | None = None
    delay: int = 0
    multi: bool = False

    @property
    def groups(self) -> int:
        """G, the number of independent systems."""
        return int(self.poles.shape[0])

    @property
    def bidirectional(self) -> bool:
        """Never: a step knows nothing of those that follow."""
        return False

    def replace(self, **changes: Any) -> Recurrence:
        """A copy with the given fields changed."""
        return dataclasses.replace(self, **changes)


jax.tree_util.register_dataclass(
    Recurrence,
    data_fields=["poles", "drive", "read", "D", "direct", "state"],
    meta_fields=["delay", "multi"],
)


def recurrence(system: DiagonalSystem) -> Recurrence:
    """The layer as it is run step by step, NumPy arrays in the system's own precision.

    Raises:
        ValueError: it has a backward scan, which begins at the end of a sequence.
    """
    if system.bidirectional:
        raise ValueError("a layer with a backward scan is not run step by step")
    B, C = np.asarray(system.B), system.pairing * np.asarray(system.C)[:, 0]
    D = None if system.D is None else np.asarray(system.D)
    square = D is not None and not system.multi and system.feedthrough == "diagonal" and D.shape[1] == D.shape[2]
    return Recurrence(
        poles=np.asarray(system.poles),
        drive=np.ascontiguousarray(np.swapaxes(np.concatenate([B.real, B.imag], axis=1), 1, 2)),
        read=np.ascontiguousarray(np.swapaxes(np.concatenate([C.real, -C.imag], axis=2), 1, 2)),
        D=D,
        direct=np.diagonal(D[0]).copy() if square and D is not None else None,
        delay=system.delay,
        multi=system.multi,
    )


def start(system: Recurrence, n: int) -> State:
    """What n sequences that begin carry."""
    shape, real = (n, *system.poles.shape), system.drive.dtype
    return State(jnp.zeros(shape, real), jnp.zeros(shape, real))


def advance(system: Recurrence, u: Array) -> State:
    """The state behind one step with the input u, (n, 1, F)."""
    before, P = _held(system), system.poles.shape[1]
    u = u[:, 0].astype(system.drive.dtype)
    if system.multi:
        drive = u[..., None] * system.drive[None, :, 0]
    else:
        drive = jnp.dot(u, system.drive[0], precision=EXACT)[:, None]
    re, im = system.poles.real[None], system.poles.imag[None]
    return State(
        re * before.re - im * before.im + drive[..., :P],
        re * before.im + im * before.re + drive[..., P:],
    )


def answer(system: Recurrence, u: Array) -> Array:
    """What the layer says to one step with the input u (n, 1, F): (n, 1, p), of multi-SISO layers (n, 1, p·G).

    The order of outputs is that of `simulate`.
    """
    x = jnp.concatenate(_held(system) if system.delay else advance(system, u), axis=-1)
    u = u.astype(system.drive.dtype)
    if system.multi:
        y = jnp.einsum("ngk,gkp->npg", x, system.read, precision=EXACT)
        if system.D is not None:
            y = y + jnp.swapaxes(system.D[..., 0], 0, 1)[None] * u
        return y.reshape(len(u), 1, -1)
    y = jnp.dot(x[:, 0], system.read[0], precision=EXACT)[:, None]
    if system.D is None:
        return y
    if system.direct is not None:
        return y + u * system.direct[None, None]
    return y + jnp.einsum("nlm,cm->nlc", u, system.D[0], precision=EXACT)


def _held(system: Recurrence) -> State:
    if system.state is None:
        raise ValueError("a step needs what the steps before left")
    return system.state
