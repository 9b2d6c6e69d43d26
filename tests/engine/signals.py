"""Features and outputs of a layer by a plain recurrence, for least squares problems written out in full."""

from __future__ import annotations

import numpy as np

from lastcli.engine.system import DiagonalSystem


def plain_features(system: DiagonalSystem, u: np.ndarray) -> np.ndarray:
    """(G, n, L, F): for each state its modes, for each mode its directions, for each of those real, then imaginary.

    Without the imaginary ones where the read-out is real.
    """
    n, length, _ = u.shape
    G, width = system.poles.shape
    R = system.directions
    found = np.zeros((G, n, length, width, R, 2))
    for g in range(G):
        v = u[:, :, g : g + 1] if system.multi else u
        for d in range(R):
            x = np.zeros((n, width), complex)
            for k in range(length) if d == 0 else range(length - 1, -1, -1):
                before = x
                x = system.poles[g] * x + v[:, k] @ system.B[g].T
                seen = before if system.delay else x
                found[g, :, k, :, d, 0], found[g, :, k, :, d, 1] = seen.real, seen.imag
    return found[..., : 1 if system.real_readout else 2].reshape(G, n, length, -1)


def by_group(system: DiagonalSystem, signal: np.ndarray) -> np.ndarray:
    """(G, n, L, channels) of inputs or head-major outputs (n, L, width)."""
    if not system.multi:
        return signal[None]
    n, length, width = signal.shape
    return np.moveaxis(signal.reshape(n, length, width // system.groups, system.groups), 3, 0)


def block(system: DiagonalSystem) -> int:
    """Features of one stored state."""
    return (1 if system.real_readout else 2) * system.directions * system.modes


def columns(system: DiagonalSystem, kept: np.ndarray) -> np.ndarray:
    """Feature columns of the kept states (K,)."""
    size = block(system)
    return np.concatenate([np.arange(size * k, size * (k + 1)) for k in kept])


def least_squares_error(
    features: np.ndarray, inputs: np.ndarray, target: np.ndarray, feedthrough: str, weights: np.ndarray
) -> np.ndarray:
    """Smallest possible mean squared error (p,) of one group: features (T, F), inputs (T, m), target (T, p)."""
    root = np.sqrt(weights / weights.sum())[:, None]
    errors = []
    for o in range(target.shape[1]):
        extra = {"none": inputs[:, :0], "dense": inputs, "diagonal": inputs[:, o : o + 1]}[feedthrough]
        design = np.concatenate([features, extra], axis=1) * root
        solution = np.linalg.lstsq(design, target[:, o] * root[:, 0], rcond=1e-13)[0]
        errors.append(((target[:, o] * root[:, 0] - design @ solution) ** 2).sum())
    return np.array(errors)
