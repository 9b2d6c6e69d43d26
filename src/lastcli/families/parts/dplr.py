"""Diagonalising S4's diagonal-plus-low-rank state matrix (arXiv 2111.00396, appendix C) exactly.

S4 keeps A = diag(Λ) - P Qᵀ over its N stored states and their conjugates, so states are coupled and none can be
dropped by index. A has 2N eigenvalues in conjugate pairs and a few real ones; in its eigenvectors the layer is a
diagonal system with the same response.
"""

from __future__ import annotations

import numpy as np

from lastcli.errors import UnsupportedModelError

__all__ = ["diagonalise", "half_spectrum", "truncation_factor"]

# Eigenvectors this close to dependent cost ten of the sixteen digits that float64 has.
_WORST_CONDITION = 1e10


def half_spectrum(
    eigenvalues: np.ndarray, P: np.ndarray, Q: np.ndarray, B: np.ndarray, C: np.ndarray, layer: str
) -> tuple[np.ndarray, np.ndarray]:
    """Modes of a system that stores half of its conjugate pairs: y = 2·Re(C x), x' = Λ x - 2 P Re(Qᵀ x) + B u.

    Args:
        eigenvalues: (S, N), Λ of every independent copy.
        P: (r, S, N) and Q: (r, S, N), the low-rank term P Qᵀ; in S4 from its second version on Q is conj(P).
        B: (S, N).
        C: (..., H, N) with H a multiple of S; channel h belongs to copy h % S.
        layer: for error messages.

    Returns:
        a (S, M) and residues (..., H, M) with y = 2·Re Σ r_i/(s - a_i): pairs by their upper half, a real pole with
        half its coefficient. M is the largest count among the copies, at least N; the rest are padded with r = 0.
    """
    copies, states = eigenvalues.shape
    # Coordinates (Re x, Im x): a real matrix, so that LAPACK returns exact conjugate pairs and exact real poles.
    into = np.concatenate([P.real, P.imag], axis=-1)
    out_of = np.concatenate([Q.real, -Q.imag], axis=-1)
    A = -2 * np.einsum("rsn,rsm->snm", into, out_of)
    index = np.arange(states)
    A[:, index, index] += eigenvalues.real
    A[:, index, index + states] -= eigenvalues.imag
    A[:, index + states, index] += eigenvalues.imag
    A[:, index + states, index + states] += eigenvalues.real
    poles, vectors = _eigen(A, layer)
    inputs = np.linalg.solve(vectors, np.concatenate([B.real, B.imag], axis=-1)[..., None] + 0j)[..., 0]
    outputs = 2 * np.concatenate([C.real, -C.imag], axis=-1)
    owner = np.arange(C.shape[-2]) % copies
    residues = np.einsum("...hk,hkm->...hm", outputs, vectors[owner]) * inputs[owner]
    residues = _symmetric(poles[owner], residues)
    return _upper_half(poles, residues, owner)


def diagonalise(
    eigenvalues: np.ndarray, P: np.ndarray, B: np.ndarray, C: np.ndarray, layer: str
) -> tuple[np.ndarray, np.ndarray]:
    """Modes of x' = (diag(Λ) - P Pᴴ) x + B u, y = C x with the full spectrum stored; everything (H, N).

    Returns:
        a (H, N) and residues (H, N).
    """
    index = np.arange(eigenvalues.shape[1])
    A = -P[:, :, None] * P[:, None, :].conj()
    A[:, index, index] += eigenvalues
    poles, vectors = _eigen(A, layer)
    inputs = np.linalg.solve(vectors, B[..., None] + 0j)[..., 0]
    return poles, np.einsum("hk,hkm->hm", C, vectors) * inputs


def truncation_factor(poles: np.ndarray, length: int) -> np.ndarray:
    """1 - λ^L, what S4 multiplies the modes of C by to get a kernel of length L from one FFT (appendix C.3)."""
    return np.ones_like(poles) if length <= 0 else 1 - poles**length


def _eigen(A: np.ndarray, layer: str) -> tuple[np.ndarray, np.ndarray]:
    poles, vectors = np.linalg.eig(A)
    poles, vectors = poles + 0j, vectors + 0j
    condition = np.linalg.cond(vectors)
    if not np.all(condition < _WORST_CONDITION):
        worst = int(np.argmax(np.where(np.isfinite(condition), condition, np.inf)))
        raise UnsupportedModelError(
            f"{layer}: the state matrix of channel {worst} has nearly dependent eigenvectors (condition "
            f"{condition[worst]:.1e}), so it has no accurate diagonal form."
        )
    return poles, vectors


def _symmetric(poles: np.ndarray, residues: np.ndarray) -> np.ndarray:
    """Residues (..., H, k) of a real response: conjugate where the poles are, real where they are.

    Rounding errors of the residues are a condition number large, and cancel in the sum over all modes. Half of the
    modes keep that sum only if each takes the mean of its own residue and its partner's; LAPACK puts partners side by
    side.
    """
    next_one, last_one = np.roll(residues, -1, axis=-1), np.roll(residues, 1, axis=-1)
    partner = np.where(poles.imag > 0, next_one, np.where(poles.imag < 0, last_one, residues))
    return (residues + partner.conj()) / 2


def _upper_half(poles: np.ndarray, residues: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep one of every pair and half of every real mode, in order of frequency, padded to the largest count."""
    kept = [np.flatnonzero(row.imag >= 0) for row in poles]
    kept = [index[np.argsort(poles[s, index].imag, kind="stable")] for s, index in enumerate(kept)]
    count = max(len(index) for index in kept)
    a = np.full((len(poles), count), -0.5 + 0j)
    r = np.zeros((*residues.shape[:-1], count), complex)
    for s, index in enumerate(kept):
        a[s, : len(index)] = poles[s, index]
        mine = owner == s
        r[..., mine, : len(index)] = residues[..., mine, :][..., index] * np.where(poles[s, index].imag == 0, 0.5, 1.0)
    return a, r
