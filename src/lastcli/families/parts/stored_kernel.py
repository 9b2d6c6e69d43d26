"""What a kernel becomes when poles and read-out are rounded to the format of a file, and the best read-out for that.

NumPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem

__all__ = ["fit_residues", "kernel_error", "largest_error_allowed", "rounding_unit"]

# A stored kernel may differ by this part of its norm in float32; half precision has so many units of rounding.
_LARGEST_ERROR, _UNITS = 1e-3, 256
# Where rounding costs less than this a refit of the read-out would change digits that nobody sees.
_SMALLEST_ERROR = 1e-5
# Steps that kernels are compared over: until the slowest mode has decayed to a thousandth, within these limits.
_SHORTEST, _LONGEST, _DECAYED = 64, 2048, 1e-3
# A channel that hardly sounds is measured against this part of the layer's root mean square.
_QUIET = 1e-2
_CHUNK = 8


def rounding_unit(dtype: Any) -> float:
    """Largest relative error of rounding to a real or complex dtype, the half-precision ones of ml_dtypes included."""
    return float(ml_dtypes.finfo(np.zeros(0, dtype).real.dtype).eps) / 2


def largest_error_allowed(dtype: Any) -> float:
    """The largest relative error of a stored kernel with which a conversion still counts as exact."""
    return max(_LARGEST_ERROR, _UNITS * rounding_unit(dtype))


def fit_residues(
    poles: np.ndarray, residues: np.ndarray, stored: np.ndarray, gain: np.ndarray, dtype: Any, ratio: np.ndarray
) -> np.ndarray:
    """Residues on rounded poles with the kernel nearest to 2·Re Σ r λ^k, whose own rounding is part of the misfit.

    Minimises the squared distance of the kernels plus that of the rounding errors to expect, unit² Σ |r_n|² ‖λ_n^k‖²:
    least squares over the steps with a ridge, by QR. What is expected is not what comes: both read-outs are rounded,
    and each row keeps the nearer one. Channels that rounding hardly changes keep their residues.

    Args:
        poles: (G, N) discrete poles.
        residues: (G, rows, N).
        stored: (G, N) the poles as the file holds them.
        gain: (G, N) what C is multiplied by in a residue; C = residues / gain is what is rounded.
        dtype: real dtype of the file's C.
        ratio: (G,) how far the terms of a channel cancel (`parts.cancellation`).
    """
    steps, unit = _horizon(poles), rounding_unit(dtype)
    fitted = residues.astype(np.complex128)
    for g in np.flatnonzero(ratio * unit > _SMALLEST_ERROR):
        y = _responses(poles[g], residues[g], steps)
        basis = _powers(stored[g], steps).T
        basis = 2 * np.concatenate([basis.real, -basis.imag], axis=1)
        size = np.maximum(np.linalg.norm(basis, axis=0), np.finfo(float).tiny)
        plain = np.concatenate([residues[g].real, residues[g].imag], axis=1)
        misfit = np.linalg.norm(plain @ basis.T - y, axis=1) + unit * np.linalg.norm(plain * size, axis=1)
        if not np.any(misfit > _SMALLEST_ERROR * np.linalg.norm(y, axis=1)):
            continue
        q, r = np.linalg.qr(np.concatenate([basis / size, unit * np.eye(len(size))]))
        x = (np.linalg.solve(r, q[:steps].T @ y.T) / size[:, None]).T
        candidate = x[:, : len(poles[g])] + 1j * x[:, len(poles[g]) :]
        # What does not fit into the dtype is infinite here, never nearer; `store` refuses it.
        with np.errstate(over="ignore", invalid="ignore"):
            plainly, anew = (
                np.linalg.norm(_responses(stored[g], _rounded(r / gain[g], dtype) * gain[g], steps) - y, axis=1)
                for r in (fitted[g], candidate)
            )
        fitted[g] = np.where((anew < plainly)[:, None], candidate, fitted[g])
    return fitted


def kernel_error(system: DiagonalSystem, stored: DiagonalSystem) -> float:
    """The largest relative error of a kernel of `stored`: each channel, direction and output of a multi-SISO layer.

    Relative to the norm of the kernel, D included, or to a hundredth of the layer's root mean square where it is less.
    """
    steps = max(_horizon(np.asarray(system.poles)), _horizon(np.asarray(stored.poles)))
    errors, norms = [], []
    for start in range(0, system.groups, _CHUNK):
        rows = slice(start, start + _CHUNK)
        before, after = (_kernels(s, rows, steps) for s in (system, stored))
        errors.append(((before - after) ** 2).sum(axis=-1).reshape(-1))
        norms.append((before**2).sum(axis=-1).reshape(-1))
    error, norm = np.sqrt(np.concatenate(errors)), np.sqrt(np.concatenate(norms))
    floor = max(_QUIET * float(np.sqrt((norm**2).mean())), np.finfo(float).tiny)
    return float((error / np.maximum(norm, floor)).max())


def _rounded(z: np.ndarray, dtype: Any) -> np.ndarray:
    return z.real.astype(dtype).astype(np.float64) + 1j * z.imag.astype(dtype).astype(np.float64)


def _horizon(poles: np.ndarray) -> int:
    slowest = float(np.clip(np.abs(poles).max(initial=0.0), 1e-6, 1 - 1e-9))
    return int(np.clip(np.log(_DECAYED) / np.log(slowest), _SHORTEST, _LONGEST))


def _responses(poles: np.ndarray, residues: np.ndarray, steps: int) -> np.ndarray:
    """(rows, L) 2·Re Σ r λ^k."""
    return 2 * (residues @ _powers(poles, steps)).real


def _powers(poles: np.ndarray, steps: int) -> np.ndarray:
    """λ^0 … λ^(steps-1) along a new last axis, by doubling; 0^0 = 1."""
    result, factor = np.ones((*poles.shape, 1), complex), poles[..., None].astype(complex)
    while result.shape[-1] < steps:
        result = np.concatenate([result, result * factor], axis=-1)
        factor = factor * factor
    return result[..., :steps]


def _kernels(system: DiagonalSystem, rows: slice, steps: int) -> np.ndarray:
    """(g, R, p, L) of some channels; D is part of the first step of the forward direction."""
    powers = _powers(np.asarray(system.poles)[rows], steps)
    weights = np.asarray(system.C)[rows] * np.asarray(system.B)[rows, None, None, :, 0]
    K = system.pairing * np.einsum("grpn,gnk->grpk", weights, powers).real
    if system.D is not None:
        K[:, 0, :, 0] += np.asarray(system.D)[rows, :, 0]
    return K
