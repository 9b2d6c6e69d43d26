"""Independent mathematics to compare with: nothing here shares code or formulas with the package.

The plain recurrence is the definition of the layer; the impulse response comes from it; everything else is computed
from a dense real state space model (conjugates written out) or from sums over a long impulse response.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lastcli.engine.system import DiagonalSystem


def recurrence(system: DiagonalSystem, u: np.ndarray) -> np.ndarray:
    """y for u (n, L, F) by the definition, one step and one group at a time; head-major for multi-SISO."""
    n, length, _ = u.shape
    G, R, p, P = system.C.shape
    y = np.zeros((n, length, p, G))
    for g in range(G):
        v = u[:, :, g : g + 1] if system.multi else u
        for d in range(R):
            x = np.zeros((n, P), complex)
            for k in range(length) if d == 0 else range(length - 1, -1, -1):
                before = x
                x = np.asarray(system.poles[g]) * x + v[:, k] @ np.asarray(system.B[g]).T
                seen = before if system.delay else x
                y[:, k, :, g] += system.pairing * (seen @ np.asarray(system.C[g, d]).T).real
        if system.D is not None:
            y[:, :, :, g] += v @ np.asarray(system.D[g]).T
    return y.reshape(n, length, p * G)


def impulse(system: DiagonalSystem, group: int = 0, length: int = 400) -> np.ndarray:
    """Two-sided impulse response of one group at lags -length..length, (2·length+1, p, m), by the recurrence."""
    single = _group(system, group)
    m, middle = single.inputs, length
    u = np.zeros((m, 2 * length + 1, m))  # one example for each input
    u[:, middle] = np.eye(m)
    return np.moveaxis(recurrence(single, u), 0, -1)


def h2_of(system: DiagonalSystem, group: int = 0, length: int = 400) -> float:
    """H2 norm as the root of the energy of the impulse response."""
    return float(np.sqrt((impulse(system, group, length) ** 2).sum()))


def transfer(system: DiagonalSystem, omega: np.ndarray, group: int = 0, length: int = 400) -> np.ndarray:
    """G(e^iω) as the Fourier sum of the impulse response, (len(ω), p, m)."""
    h = impulse(system, group, length)
    phases = np.exp(-1j * np.outer(omega, np.arange(-length, length + 1)))
    return np.tensordot(phases, h, axes=1)


def h_infinity_of(system: DiagonalSystem, group: int = 0, points: int = 4001) -> float:
    """Largest singular value on a fine frequency grid (a lower bound, tight to the grid's spacing)."""
    response = transfer(system, np.linspace(0, np.pi, points), group)
    return float(np.linalg.svd(response, compute_uv=False)[:, 0].max())


def dense(system: DiagonalSystem, group: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Real (A, B, C, D) of one forward group, x[k+1] = A x[k] + B u[k], y[k] = C x[k] + D u[k].

    The states are Re x and Im x, so the order is twice the number of poles and conjugates come of themselves.
    """
    assert system.directions == 1
    poles, B, C = system.poles[group], system.B[group], system.C[group, 0]
    A = np.block([[np.diag(poles.real), -np.diag(poles.imag)], [np.diag(poles.imag), np.diag(poles.real)]])
    Bd = np.vstack([B.real, B.imag])
    Cd = system.pairing * np.hstack([C.real, -C.imag])
    D = np.zeros((system.outputs, system.inputs)) if system.D is None else system.D[group]
    if system.delay:
        return A, Bd, Cd, D
    return A, Bd, Cd @ A, D + Cd @ Bd


def h2_lyapunov(system: DiagonalSystem, group: int = 0) -> float:
    """H2 norm of one forward group by a dense discrete Lyapunov solve."""
    A, B, C, D = dense(system, group)
    gramian = scipy.linalg.solve_discrete_lyapunov(A, B @ B.T)
    return float(np.sqrt(np.trace(C @ gramian @ C.T) + np.trace(D @ D.T)))


def hankel_of(system: DiagonalSystem, group: int = 0) -> np.ndarray:
    """Hankel singular values of one forward group from dense Lyapunov solves, descending.

    Of the layer as it is with delay, and of the layer delayed by a step without.
    """
    A, B, C, _ = dense(system.replace(delay=1), group)
    controllability = scipy.linalg.solve_discrete_lyapunov(A, B @ B.T)
    observability = scipy.linalg.solve_discrete_lyapunov(A.T, C.T @ C)
    values = np.linalg.eigvals(controllability @ observability).real
    return np.sqrt(np.sort(np.maximum(values, 0))[::-1])


def difference(one: DiagonalSystem, other: DiagonalSystem) -> DiagonalSystem:
    """A system whose response is that of `one` minus that of `other` (same groups, directions, pairing, delay)."""
    assert one.pairing == other.pairing
    assert one.delay == other.delay
    D = None
    if one.D is not None or other.D is not None:
        zero = np.zeros((one.groups, one.outputs, one.inputs))
        D = (zero if one.D is None else one.D) - (zero if other.D is None else other.D)
    return one.replace(
        poles=np.concatenate([one.poles, other.poles], axis=1),
        B=np.concatenate([one.B, other.B], axis=1),
        C=np.concatenate([one.C, -other.C], axis=3),
        D=D,
    )


def _group(system: DiagonalSystem, group: int) -> DiagonalSystem:
    D = None if system.D is None else system.D[group : group + 1]
    one = slice(group, group + 1)
    return system.replace(poles=system.poles[one], B=system.B[one], C=system.C[one], D=D, sets=1, multi=False)
