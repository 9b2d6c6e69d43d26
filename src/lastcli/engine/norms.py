"""System norms in closed form or to a tolerance: frequency response, H2, H-infinity, Gramians, Hankel singular values.

All are those of the real system that the layer is: conjugates, both scan directions, the delay and D included. Every
function works on each group of a layer by itself and gives one value a group.
"""

from __future__ import annotations

import numpy as np

from lastcli.engine.climbing import climbed_peak
from lastcli.engine.modal import Modal
from lastcli.engine.peaks import peak_gain, pole_grid
from lastcli.engine.system import DiagonalSystem, active_states, feedthrough_of

__all__ = [
    "frequency_response",
    "gramians",
    "h2_norm",
    "h_infinity_norm",
    "hankel_singular_values",
    "joint_gramian",
    "symmetric_root",
]

# Up to this size of its smaller side, a response matrix is decomposed as it is; beyond it, the peak is climbed.
_EXACT_SIZE = 8
# How many of the highest points of the grid the peak is searched around.
_CANDIDATES = 5


def frequency_response(system: DiagonalSystem, omega: np.ndarray) -> np.ndarray:
    """G(e^iω) = D + Σ_k h[k] e^(-iωk) over the two-sided real impulse response h.

    Args:
        system: the layer, |λ| < 1 wherever B and C are not zero.
        omega: (K,) radians a step.

    Returns:
        (G, K, p, m) complex.
    """
    omega = np.asarray(omega, np.float64)
    return np.stack([Modal.of(system, g).response(omega) for g in range(system.groups)])


def h2_norm(system: DiagonalSystem) -> np.ndarray:
    """H2 norm of every group: the root of the energy of the impulse response, D at lag 0 included.

    The energy of s·Re(C λ^k B) over k ≥ 0 is s²/2·Σ_ij [(CᴴC)_ji (b_i·b_j*)/(1-λ_i λ_j*) + Re (CᵀC)_ij
    (b_i·b_j)/(1-λ_i λ_j)]. Two directions overlap at lag 0 only, and there only without delay.

    Returns:
        (G,); infinite where |λ| ≥ 1 and the state is both driven and read. Where large terms cancel, a value that
        cannot be told from rounding is given as the size of the rounding.
    """
    active = active_states(system)
    unstable = (active & (np.abs(system.poles) >= 1)).any(axis=1)
    poles = np.where(active & (np.abs(system.poles) < 1), system.poles, 0)
    B, half = np.where(active[..., None], system.B, 0), system.pairing**2 / 2
    hermitian = B @ B.conj().swapaxes(1, 2) / (1 - poles[:, :, None] * poles[:, None, :].conj())
    symmetric = B @ B.swapaxes(1, 2) / (1 - poles[:, :, None] * poles[:, None, :])
    energy, rounding = np.zeros(system.groups), np.zeros(system.groups)
    at_zero = feedthrough_of(system)
    for d in range(system.directions):
        C = np.where(active[:, None], system.C[:, d], 0)
        outer = C.conj().swapaxes(1, 2) @ C
        own = np.einsum("gij,gji->g", outer, hermitian).real
        rounding += half * np.finfo(float).eps * np.einsum("gij,gji->g", np.abs(outer), np.abs(hermitian))
        energy += half * (own + np.einsum("gij,gij->g", C.swapaxes(1, 2) @ C, symmetric).real)
        if not system.delay:
            first = system.pairing * (C @ B).real
            at_zero = at_zero + first
            energy -= (first**2).sum(axis=(1, 2))  # counted once, in the sum at lag 0
    energy = np.maximum(energy, rounding) + (at_zero**2).sum(axis=(1, 2))
    return np.where(unstable, np.inf, np.sqrt(energy))


def h_infinity_norm(system: DiagonalSystem) -> np.ndarray:
    """H-infinity norm of every group: the largest singular value of the response over all frequencies.

    Evaluated at every pole's angle, around it and on an even grid; the highest maxima are then refined. What is
    returned was reached at some frequency, so it never exceeds the norm.

    Returns:
        (G,); infinite where |λ| ≥ 1 and the state is both driven and read.
    """
    unstable = (active_states(system) & (np.abs(system.poles) >= 1)).any(axis=1)
    norms: np.ndarray = np.full(system.groups, np.inf)
    stable = np.flatnonzero(~unstable)
    if min(system.outputs, system.inputs) == 1:
        norms[stable] = _peaks_of_vectors(system, stable)
        return norms
    for g in stable:
        modal = Modal.of(system, int(g))
        if not modal.poles.size:  # a constant gain
            norms[g] = np.linalg.norm(modal.D, 2)
            continue
        small = min(system.outputs, system.inputs) <= _EXACT_SIZE
        norms[g] = _decomposed_peak(modal) if small else climbed_peak(modal)
    return norms


def _decomposed_peak(modal: Modal) -> float:
    def gain(omega: np.ndarray) -> np.ndarray:
        return np.linalg.svd(modal.response(omega), compute_uv=False)[:, 0]

    return float(peak_gain(gain, modal.grid((-1.0, 0.0, 1.0)), _CANDIDATES))


def gramians(system: DiagonalSystem) -> tuple[np.ndarray, np.ndarray]:
    """Controllability and observability Gramians in the real coordinates [Re x; Im x].

    They are those of x[k+1] = A x[k] + B u[k], y[k] = C x[k] with the layer's own λ, B, C: with `delay` = 0 that is
    the layer's strictly causal part delayed by one step, which changes no norm. Two read-out directions count as
    stacked outputs. States must be stable.

    Returns:
        two arrays (G, 2P, 2P), P = N·modes.
    """
    poles, controllability = system.poles, joint_gramian(system, system)
    stacked = system.C.reshape(system.groups, -1, poles.shape[1])
    outer = stacked.conj().swapaxes(1, 2) @ stacked / (1 - poles[:, :, None].conj() * poles[:, None, :])
    inner = stacked.swapaxes(1, 2) @ stacked / (1 - poles[:, :, None] * poles[:, None, :])
    plus, minus = inner + outer, inner - outer
    observability = np.block([[plus.real, -plus.imag], [-minus.imag, -minus.real]])
    return controllability, system.pairing**2 / 2 * observability


def joint_gramian(one: DiagonalSystem, other: DiagonalSystem) -> np.ndarray:
    """E[f f'ᵀ] for f = [Re x; Im x] of the forward scans of two layers under one white noise, (G, 2P, 2P')."""
    outer = one.poles[:, :, None] * other.poles[:, None, :].conj()
    hermitian = one.B @ other.B.conj().swapaxes(1, 2) / (1 - outer)
    symmetric = one.B @ other.B.swapaxes(1, 2) / (1 - one.poles[:, :, None] * other.poles[:, None, :])
    plus, minus = (symmetric + hermitian) / 2, (symmetric - hermitian) / 2
    return np.block([[plus.real, minus.imag], [plus.imag, -minus.real]])


def hankel_singular_values(system: DiagonalSystem) -> np.ndarray:
    """Hankel singular values of the system of `gramians`, descending: (G, 2P)."""
    controllability, observability = gramians(system)
    return np.linalg.svd(
        symmetric_root(observability).swapaxes(1, 2) @ symmetric_root(controllability), compute_uv=False
    )


def symmetric_root(gram: np.ndarray) -> np.ndarray:
    """L with gram = L Lᵀ for (..., n, n) positive semidefinite, scaled to a unit diagonal first."""
    scale = np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(gram / (scale[..., :, None] * scale[..., None, :]))
    return scale[..., None] * vectors * np.sqrt(np.maximum(values, 0))[..., None, :]


def _peaks_of_vectors(system: DiagonalSystem, groups: np.ndarray) -> np.ndarray:
    """H-infinity norms of groups with one input or one output: the norm of a vector, all groups at once."""
    if not len(groups):
        return np.zeros(0)
    active = active_states(system)[groups]
    poles = np.where(active, system.poles[groups], 0)
    weight = system.pairing / 2 * np.einsum("grpn,gnm->grnpm", system.C[groups], system.B[groups])
    weight = np.where(active[:, None, :, None, None], weight, 0).reshape(*weight.shape[:3], -1)
    weight = np.concatenate([weight, weight.conj()], axis=2)
    both = np.concatenate([poles, poles.conj()], axis=1)
    direct = 0 if system.D is None else system.D[groups].reshape(len(groups), 1, -1)

    def gain(omega: np.ndarray) -> np.ndarray:
        response = np.zeros((*omega.shape, weight.shape[-1]), complex) + direct
        for d in range(system.directions):
            q = np.exp((-1j if d == 0 else 1j) * omega)[..., None]
            response += (q**system.delay / (1 - q * both[:, None])) @ weight[:, d]
        return np.sqrt((np.abs(response) ** 2).sum(axis=-1))

    return peak_gain(gain, pole_grid(poles, real=True))
