"""What a state is worth: the energy of every stored state of a layer, by one of several published criteria.

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

from collections.abc import Callable, Sequence

import numpy as np

from lastcli.engine.peaks import peak_gain, pole_grid
from lastcli.engine.system import DiagonalSystem, sum_by_set
from lastcli.errors import InputError, UnsupportedModelError, UsageError

__all__ = ["CRITERIA", "check_stable", "energies", "h2", "hinf", "magnitude", "random", "unstable"]

# The published code adds this to the denominators of hinf and h2.
_REFERENCE_EPSILON = 1e-8


def energies(
    system: DiagonalSystem,
    criterion: str,
    *,
    compat: bool = False,
    seed: int = 0,
    parameters: np.ndarray | None = None,
) -> np.ndarray:
    """Energy of every stored state under a criterion of `CRITERIA`, (sets, N).

    Raises:
        UsageError: there is no such criterion.
    """
    if criterion not in CRITERIA:
        raise UsageError(f"There is no criterion {criterion!r}; known criteria: {', '.join(CRITERIA)}.")
    return CRITERIA[criterion](system, compat=compat, seed=seed, parameters=parameters)


def hinf(
    system: DiagonalSystem, *, compat: bool = False, seed: int = 0, parameters: np.ndarray | None = None
) -> np.ndarray:
    """Squared H-infinity norm of each state's subsystem, (sets, N).

    Args:
        system: the layer.
        compat: reproduce the published code: 1e-8 is added to (1 - |λ|)², and with two directions the norms of both
            read-outs enter as (n₁ + n₂)/4, not squared (an operator precedence slip). States with |λ| ≥ 1 then
            go through the formula like any other, as they do there.
        seed: not used.
        parameters: not used.
    """
    with np.errstate(divide="ignore"):
        gain = 1 / ((1 - np.abs(system.poles)) ** 2 + (_REFERENCE_EPSILON if compat else 0))
    return _energy(system, gain, _peaks, compat)


def h2(
    system: DiagonalSystem, *, compat: bool = False, seed: int = 0, parameters: np.ndarray | None = None
) -> np.ndarray:
    """Squared H2 norm of each state's subsystem, (sets, N); `compat` as in `hinf`, with 1 - |λ|² at least 0."""
    with np.errstate(divide="ignore"):
        gain = 1 / (np.maximum(1 - np.abs(system.poles) ** 2, 0) + (_REFERENCE_EPSILON if compat else 0))
    return _energy(system, gain, _impulse_energies, compat)


def magnitude(
    system: DiagonalSystem, *, compat: bool = False, seed: int = 0, parameters: np.ndarray | None = None
) -> np.ndarray:
    """Sum of squares of the parameters of each state, (sets, N).

    Args:
        system: the layer.
        compat: not used.
        seed: not used.
        parameters: (sets, N) sums of squares of all STORED parameters of a state (λ, b, c and step as the tensors
            have them), which only the model family knows. None: those of the discrete λ, B and C instead.
    """
    if parameters is not None:
        return np.asarray(parameters, np.float64).reshape(system.sets, system.states)
    squares = np.abs(system.poles) ** 2
    squares = squares + (np.abs(system.B) ** 2).sum(axis=2) + (np.abs(system.C) ** 2).sum(axis=(1, 2))
    return sum_by_set(squares.reshape(system.groups, system.states, system.modes).sum(axis=2), system.sets)


def random(
    system: DiagonalSystem, *, compat: bool = False, seed: int = 0, parameters: np.ndarray | None = None
) -> np.ndarray:
    """Uniform draws in [0, 1), (sets, N); give every layer a seed of its own."""
    return np.random.default_rng(seed).random((system.sets, system.states))


CRITERIA: dict[str, Callable[..., np.ndarray]] = {"hinf": hinf, "h2": h2, "magnitude": magnitude, "random": random}


def unstable(systems: Sequence[DiagonalSystem]) -> list[np.ndarray]:
    """Which stored states have a pole with |λ| ≥ 1, one (sets, N) bool array a layer."""
    masks = []
    for system in systems:
        outside = (np.abs(system.poles) >= 1).reshape(system.groups, system.states, system.modes).any(axis=2)
        masks.append(outside.reshape(-1, system.sets, system.states).any(axis=0))
    return masks


def check_stable(systems: Sequence[DiagonalSystem], names: Sequence[str], allow: bool = False) -> None:
    """Refuse layers whose states have no finite norm.

    Args:
        systems: the layers.
        names: their names, for the message.
        allow: let |λ| ≥ 1 pass (`unstable` says where; such states are to be kept).

    Raises:
        InputError: a pole, B, C or D is NaN or infinite; names the layer and the first such state.
        UnsupportedModelError: a pole has |λ| ≥ 1 and `allow` is False; names the layer and the worst state.
    """
    for system, name in zip(systems, names, strict=True):
        _check_finite(system, name)
        radius = np.abs(system.poles)
        if allow or radius.size == 0 or radius.max() < 1:
            continue
        where = np.unravel_index(radius.argmax(), radius.shape)
        count = int(unstable([system])[0].sum())
        others = f" ({count} states in all)" if count > 1 else ""
        raise UnsupportedModelError(
            f"Layer {name}: {_state(system, *where)} has |λ| = {radius[where]:.9g}{others}, so its norm is not finite; "
            "check the discretisation options, or allow unstable states, which are then always kept."
        )


def _check_finite(system: DiagonalSystem, name: str) -> None:
    for label, array, axis in (("a pole", system.poles, 1), ("B", system.B, 1), ("C", system.C, 3)):
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            place = _state(system, bad[0][0], bad[0][axis])
            raise InputError(f"Layer {name}: {label} of {place} is NaN or infinite; the checkpoint is damaged.")
    if system.D is not None and not np.isfinite(system.D).all():
        raise InputError(f"Layer {name}: D holds NaN or infinite values; the checkpoint is damaged.")


def _state(system: DiagonalSystem, group: int, column: int) -> str:
    channel = f"channel {group}, " if system.multi else ""
    return f"{channel}state {column // system.modes}"


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
    active = (np.trace(outer, axis1=-2, axis2=-1).real > 0) & (np.trace(inner, axis1=-2, axis2=-1).real > 0)[:, None]
    return np.where(~stable[:, None] & active, np.inf, energy)
