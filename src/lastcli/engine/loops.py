"""The recurrence of a layer as a plain NumPy loop over its steps.

For searches that run a layer of a few hundred states some dozen times on a CPU: a step is one product and one sum of
whole arrays, and nothing has to be compiled for every new number of states.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lastcli.engine.system import DiagonalSystem

__all__ = ["drive", "in_time", "passed", "run"]


def run(poles: np.ndarray, drive: np.ndarray, out: np.ndarray, *, delay: int = 0, backwards: bool = False) -> None:
    """x[k] = λ x[k-1] + drive[k], starting from zero, or with `delay` x[k-1], into `out`; `backwards` k falls.

    Args:
        poles: (..., K) complex.
        drive: (L, n, ..., K) complex.
        out: (L, n, ..., K) complex.
    """
    poles = np.broadcast_to(poles, drive.shape[1:]).copy()
    steps = range(len(drive))[:: -1 if backwards else 1]
    for k in steps[:1]:
        out[k] = 0 if delay else drive[k]
    for before, k in pairwise(steps):
        np.multiply(poles, out[before], out=out[k])
        out[k] += drive[before if delay else k]


def drive(system: DiagonalSystem, u: np.ndarray) -> np.ndarray:
    """B u (L, n, G, P) complex, of inputs (L, n, F) in the order of time."""
    if system.multi:
        return u[..., None] * system.B[..., 0]
    B = system.B[0]
    parts = np.stack([B.real, B.imag], axis=1).reshape(-1, B.shape[1])  # the two parts of a state side by side
    driven = u.reshape(-1, B.shape[1]) @ parts.T
    return driven.view(complex).reshape(*u.shape[:2], 1, -1)


def passed(system: DiagonalSystem, u: np.ndarray) -> np.ndarray:
    """The states as the read-out sees them, (L, n, R, G, P) complex; u (L, n, F) in the order of time."""
    driven = drive(system, u)
    x = np.empty((*driven.shape[:2], system.directions, *driven.shape[2:]), complex)
    for d in range(system.directions):
        run(system.poles, driven, x[:, :, d], delay=system.delay, backwards=d > 0)
    return x


def in_time(signal: np.ndarray) -> np.ndarray:
    """(n, L, c) as (L, n, c), one after the other in memory."""
    return np.ascontiguousarray(np.swapaxes(signal, 0, 1))
