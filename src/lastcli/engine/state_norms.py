"""Squared norms of every state's own subsystem: what it can do to the output if it were alone.

For a stored state with pole λ, input row b and read-out column c (discrete time), the rank-one subsystem is
c b λ^k. Its squared norms are

- ``hinf``: ‖c‖²·‖b‖² / (1 - |λ|)², the squared H-infinity norm (LAST, arXiv 2411.02824)
- ``h2``: ‖c‖²·‖b‖² / (1 - |λ|²), the energy of the impulse response (AIRE-Prune, arXiv 2602.00534)

The pairing factor of a layer is not part of either, as in both papers. With two directions the norm of the read-out is
the mean of both norms. A state that holds several poles (oscillators) is one subsystem of that order, and one that is
shared by several groups (tied poles) is worth the sum over them. A state with |λ| ≥ 1 has infinite energy unless it
does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lastcli.engine.peaks import peak_gain, pole_grid
from lastcli.engine.system import DiagonalSystem, sum_by_set

__all__ = ["h2", "hinf", "horizon_energy"]

# The published code adds this to the denominators of hinf and h2.
_REFERENCE_EPSILON = 1e-8


def hinf(system: DiagonalSystem, *, compat: bool = False) -> np.ndarray:
    """Squared H-infinity norm of each state's subsystem, (sets, N).

    Args:
        system: the layer.
        compat: reproduce the published code: 1e-8 is added to (1 - |λ|)², and with two directions the norms of both
            read-outs enter as (n₁ + n₂)/4, not squared (an operator precedence slip). States with |λ| ≥ 1 then
            go through the formula like any other, as they do there.
    """
    with np.errstate(divide="ignore"):
        gain = 1 / ((1 - np.abs(system.poles)) ** 2 + (_REFERENCE_EPSILON if compat else 0))
    return _energy(system, gain, _peaks, compat)


def h2(system: DiagonalSystem, *, compat: bool = False) -> np.ndarray:
    """Squared H2 norm of each state's subsystem, (sets, N); `compat` as in `hinf`, with 1 - |λ|² at least 0."""
    with np.errstate(divide="ignore"):
        gain = 1 / (np.maximum(1 - np.abs(system.poles) ** 2, 0) + (_REFERENCE_EPSILON if compat else 0))
    return _energy(system, gain, _impulse_energies, compat)


def horizon_energy(system: DiagonalSystem, steps: int) -> np.ndarray:
    """Energy of each state's impulse response over its first `steps` steps, Σ_{k < steps} ‖Σ_i c_i b_i λ_i^k‖².

    A number where `h2` has none, for any λ; for |λ| < 1 it tends to `h2` as the steps grow.

    Args:
        system: the layer.
        steps: length of the sequences, at least 1.

    Returns:
        (sets, N); infinite only where it is too large for a double.
    """
    poles, inner, outer = _grams(system)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _geometric(poles[..., :, None] * poles[..., None, :].conj(), steps)
        energy = np.einsum("grnij,gnji->grn", outer, np.where(inner != 0, inner * sums, 0)).real
    active = _active(inner, outer)
    energy = np.where(active, np.where(np.isnan(energy), np.inf, np.maximum(energy, 0)), 0)
    return sum_by_set(_mean_norm_squared(energy), system.sets)


def _geometric(ratio: np.ndarray, steps: int) -> np.ndarray:
    """Σ_{k < steps} ratio^k, by doubling: nothing cancels near 1."""
    total, power = np.ones_like(ratio), ratio.copy()
    for bit in bin(steps)[3:]:
        total, power = total * (1 + power), power * power
        if bit == "1":
            total, power = total + power, power * ratio
    return total


def _energy(
    system: DiagonalSystem, gain: np.ndarray, of_modes: Callable[[DiagonalSystem], np.ndarray], compat: bool
) -> np.ndarray:
    """Energies from the squared gain (G, N) of c = b = 1, or by `of_modes` -> (G, R, N) where a state has several."""
    if system.modes > 1:
        return sum_by_set(_mean_norm_squared(of_modes(system)), system.sets)
    b = (np.abs(system.B) ** 2).sum(axis=2)
    c = (np.abs(system.C) ** 2).sum(axis=2)
    if compat and system.bidirectional:
        read_out = np.sqrt(c).sum(axis=1) / 4
    else:
        read_out = _mean_norm_squared(c)
    if not compat:
        gain = np.where(np.abs(system.poles) < 1, gain, np.inf)
    strength = read_out * b
    return sum_by_set(np.multiply(strength, gain, out=np.zeros(gain.shape), where=strength > 0), system.sets)


def _mean_norm_squared(squares: np.ndarray) -> np.ndarray:
    """The mean over the directions of the norms, squared: (G, R, N) squared norms -> (G, N)."""
    return squares[:, 0] if squares.shape[1] == 1 else np.sqrt(squares).mean(axis=1) ** 2


def _grams(system: DiagonalSystem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poles (G, N, q), B Bᴴ (G, N, q, q) and Cᴴ C (G, R, N, q, q) of the q modes of each state."""
    q, N = system.modes, system.states
    poles = system.poles.reshape(-1, N, q)
    B = system.B.reshape(system.groups, N, q, -1)
    C = system.C.reshape(system.groups, system.directions, system.outputs, N, q)
    inner = np.einsum("gnim,gnjm->gnij", B, B.conj())
    outer = np.einsum("grpni,grpnj->grnij", C.conj(), C)
    return poles, inner, outer


def _impulse_energies(system: DiagonalSystem) -> np.ndarray:
    """Σ_k ‖Σ_i c_i b_i λ_i^k‖² in closed form, (G, R, N)."""
    poles, inner, outer = _grams(system)
    stable = (np.abs(poles) < 1).all(axis=2)
    safe = np.where(stable[..., None], poles, 0)
    gram = inner / (1 - safe[..., :, None] * safe[..., None, :].conj())
    energy = np.einsum("grnij,gnji->grn", outer, gram).real
    return _infinite_where_unstable(np.maximum(energy, 0), stable, inner, outer)


def _peaks(system: DiagonalSystem) -> np.ndarray:
    """max over ω of the squared norm of Σ_i c_i b_i / (1 - λ_i e^(-iω)), (G, R, N)."""
    poles, inner, outer = _grams(system)
    stable = (np.abs(poles) < 1).all(axis=2)
    safe = np.where(stable[..., None], poles, 0)
    eigenvalues, vectors = np.linalg.eigh(inner)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0))[..., None, :]  # B Bᴴ = root rootᴴ

    def curve(read_out: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def gain(omega: np.ndarray) -> np.ndarray:
            phi = 1 / (1 - safe[:, :, None] * np.exp(-1j * omega)[..., None])
            weighted = phi[..., None] * root[:, :, None]
            squares = np.einsum("gnkij,gnil,gnklm->gnkjm", weighted.conj(), read_out, weighted)
            return np.linalg.eigvalsh(squares)[..., -1]

        return gain

    energy = np.stack([peak_gain(curve(outer[:, d]), pole_grid(safe)) for d in range(system.directions)], axis=1)
    return _infinite_where_unstable(np.maximum(energy, 0), stable, inner, outer)


def _infinite_where_unstable(
    energy: np.ndarray, stable: np.ndarray, inner: np.ndarray, outer: np.ndarray
) -> np.ndarray:
    return np.where(~stable[:, None] & _active(inner, outer), np.inf, energy)


def _active(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """(G, R, N) bool: states that are both driven and read."""
    return (np.trace(outer, axis1=-2, axis2=-1).real > 0) & (np.trace(inner, axis1=-2, axis2=-1).real > 0)[:, None]
