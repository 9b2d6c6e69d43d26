"""How far the terms of a kernel cancel: what rounding to a shorter format costs.

A kernel is a sum over states, K[k] = s·Re Σ C_n λ_n^k B_n. With nearly dependent eigenvectors (HiPPO matrices, which S4
starts from) the terms are a million times larger than their sum, and a relative error u of each of them is an error of
u times that of the sum. NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem

__all__ = ["LARGEST_LOSS", "cancellation", "forward_precision"]

# A forward pass runs in float32 as long as rounding its systems changes no kernel by more than about this.
LARGEST_LOSS = 1e-3
_HALF_ULP = 2.0**-24
# Where a state does not decay its sum is taken as that of one which nearly does not.
_LARGEST_MODULUS = 1 - 1e-6


def cancellation(system: DiagonalSystem) -> np.ndarray:
    """(G,) ratio of the H2 norm of the kernel with every term made positive to that of the kernel itself, at least 1.

    Both norms are sums over infinite time in closed form: Σ_k λ^k μ^k = 1/(1 - λ μ). The larger direction counts.
    """
    poles = np.asarray(system.poles)
    poles = poles * np.minimum(1.0, _LARGEST_MODULUS / np.maximum(np.abs(poles), 1e-300))
    B = np.asarray(system.B)
    worst = np.ones(len(poles))
    for direction in range(system.directions):
        C = np.asarray(system.C)[:, direction]
        above = _energy(np.abs(poles), np.abs(B), np.abs(C), conjugate=False).real
        same = _energy(poles, B, C, conjugate=False).real
        mixed = _energy(poles, B, C, conjugate=True).real
        # |Re z|² = (|z|² + Re z²) / 2; the difference of large sums has no more digits than float64 leaves it.
        below = np.maximum((mixed + same) / 2, np.finfo(float).eps * above)
        worst = np.maximum(worst, np.sqrt(np.where(above > 0, above / np.where(above > 0, below, 1), 1.0)))
    return worst


def forward_precision(systems: Iterable[DiagonalSystem]) -> str:
    """What `Forward.precision` should be: "float64" where float32 would cost more than `LARGEST_LOSS` of a kernel."""
    lossy = any(float(cancellation(system).max(initial=1.0)) * _HALF_ULP > LARGEST_LOSS for system in systems)
    return "float64" if lossy else "float32"


def _energy(poles: np.ndarray, B: np.ndarray, C: np.ndarray, *, conjugate: bool) -> np.ndarray:
    """(G,) Σ_k Σ_ij K_ij[k] K'_ij[k] of the complex kernel K = C λ^k B, with K' = K or its conjugate."""
    other = [x.conj() if conjugate else x for x in (poles, B, C)]
    outputs = np.einsum("gpn,gpm->gnm", C, other[2])
    inputs = np.einsum("gnj,gmj->gnm", B, other[1])
    return (outputs * inputs / (1 - poles[:, :, None] * other[0][:, None, :])).sum(axis=(1, 2))
