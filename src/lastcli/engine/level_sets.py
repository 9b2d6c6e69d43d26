"""Whether a peak that a search has found is the highest: the frequencies at which the gain crosses a level.

A singular value of G is γ at a frequency exactly where a Hamiltonian matrix that is built from γ has an eigenvalue on
the imaginary axis. If there is none above the highest gain found so far, no frequency has more; if there are some, the
gain between two neighbours shows where to climb on (Boyd, Balakrishnan and Kabamba, Mathematics of Control, Signals and
Systems 2, 1989; Bruinsma and Steinbuch, Systems and Control Letters 14, 1990, for the midpoints).

A layer is brought into that form by z = ±(1+s)/(1-s). Each pole λ of a forward scan becomes one at μ = (±λ-1)/(±λ+1),
left of the axis, each of a backward scan one at -μ, right of it: the theorem asks for none on the axis, not for
stability, so both directions, the delay and D are part of one system.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lastcli.engine.modal import Modal
from lastcli.engine.norms import frequency_response, h_infinity_norm
from lastcli.engine.peaks import peak_gain, pole_grid
from lastcli.engine.system import DiagonalSystem, active_states, feedthrough_of

__all__ = ["HInfinity", "certified_h_infinity"]

# How far, relatively, the norm may lie above what is called exact.
TOLERANCE = 1e-6
# Most rows of Hamiltonian matrices, cubed and added up over the groups: about a second.
LARGEST = 512**3

# Up to this many inputs or outputs the search costs less than the proof.
_NARROW = 8
_ROUNDS = 40
# Eigenvalues this near the axis, relative to 1 + |s|, are looked at as if they were on it: that costs evaluations only.
_NEAR = 1e-7
# Gains this far below the terms that they are the sum of are rounding.
_ROUNDING = 1e-12
# Responses whose singular values are computed together, the most promising first.
_AT_ONCE = 16


@dataclass(frozen=True)
class HInfinity:
    """The H-infinity norm of a layer.

    Attributes:
        value: a gain that is reached at some frequency; infinite where |λ| ≥ 1 and the state is both driven and read.
        exact: whether no frequency has a gain above `value` by more than the share 1e-6. Otherwise `value` is a lower
            bound.
    """

    value: float
    exact: bool


def certified_h_infinity(system: DiagonalSystem) -> HInfinity:
    """The largest singular value of a layer's response over all frequencies and groups, proved where that is feasible.

    The proof takes time that grows with the cube of the number of poles: beyond `LARGEST` it is left out, and also
    where the eigenvalues it rests on are not known well enough. Where it is feasible it finds the peak as well, from a
    coarse grid: of layers with many inputs and outputs the search takes ten times as long.
    """
    active = active_states(system)
    if (active & (np.abs(system.poles) >= 1)).any():
        return HInfinity(np.inf, True)
    limits = _upper_bounds(system)
    searched = min(system.outputs, system.inputs) <= _NARROW or _effort(system, active) > LARGEST
    rough = [] if searched else [_Group.of(system, g).on_a_grid() for g in range(system.groups)]
    found = h_infinity_norm(system) if searched else np.array([peak.gain for peak in rough])
    top = float(found.max(initial=0.0))
    doubtful = np.flatnonzero(limits > top * (1 + TOLERANCE))
    if not len(doubtful):
        return HInfinity(top, True)
    if top <= _ROUNDING * limits.max() or _effort(system, active[doubtful]) > LARGEST:
        return HInfinity(top if searched else float(h_infinity_norm(system).max()), False)
    exact = True
    # The highest first: what lies below it everywhere needs one look.
    for g in doubtful[np.argsort(-found[doubtful])]:
        group = _Group.of(system, int(g))
        if not searched and found[g] >= top:
            # a search around the highest point costs far less than the eigenvalues, which then only confirm it
            top = max(top, group.refined(rough[g]))
        top, sure = _climb(group, top, refine=not searched)
        exact &= sure
    if not exact and not searched:  # the coarse grid alone would be a poor lower bound
        top = max(top, float(h_infinity_norm(system).max()))
    return HInfinity(top, exact)


def _effort(system: DiagonalSystem, active: np.ndarray) -> float:
    """Rows of the Hamiltonian matrices of groups with (G, P) active states, cubed and added up."""
    return float(((4.0 * system.directions * active.sum(axis=1)) ** 3).sum())


def _upper_bounds(system: DiagonalSystem) -> np.ndarray:
    """(G,) the sum of what every state alone, and D, can reach."""
    alone = np.linalg.norm(system.B, axis=2) * np.linalg.norm(system.C, axis=2).sum(axis=1)
    distance = np.where(alone > 0, 1 - np.abs(system.poles), 1)
    direct = np.linalg.norm(feedthrough_of(system), ord=2, axis=(1, 2))
    return np.asarray(system.pairing * (alone / distance).sum(axis=1) + direct)


def _climb(group: _Group, top: float, refine: bool) -> tuple[float, bool]:
    """The level, raised as long as the gain of the group crosses it; and whether it is sure that it no longer does.

    Args:
        group: one group.
        top: a gain that some group reaches.
        refine: whether to search for the maximum beside the highest point, where the group raised the level: what it
            ends at is up to the tolerance below it.
    """
    highest, sure = None, False
    for _ in range(_ROUNDS):
        level = top * (1 + TOLERANCE)
        omega, sure = group.crossings(level)
        places = np.unique(np.concatenate([[0.0], omega, [np.pi]]))
        places = np.sort(np.concatenate([places, (places[1:] + places[:-1]) / 2]))
        found = group.highest(places)
        if found.gain > top:
            top, highest = found.gain, found
        if found.gain <= level:
            break
    else:
        sure = False
    return (max(top, group.refined(highest)) if refine and highest is not None else top), sure


@dataclass(frozen=True)
class _Peak:
    """The highest gain at some frequencies, and the frequency there and beside it, ascending."""

    gain: float
    around: np.ndarray


@dataclass(frozen=True)
class _Group:
    """One group, active states only, as a system in s: G = D + C (s - A)⁻¹ B, real, two coordinates for each pole."""

    system: DiagonalSystem
    side: float
    mu: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray

    @classmethod
    def of(cls, system: DiagonalSystem, g: int) -> _Group:
        own = active_states(system, slice(g, g + 1))[0]
        single = system.replace(
            poles=system.poles[g : g + 1, own],
            B=system.B[g : g + 1, own],
            C=system.C[g : g + 1, ..., own],
            D=feedthrough_of(system)[g : g + 1],
            sets=1,
        )
        side, direct = _side(single)
        turned = side * single.poles[0]
        mu, weight = (turned - 1) / (turned + 1), side * 2 / (turned + 1) ** 2
        if not system.delay:
            # The state after the update is λ times the one before it, and a direct part that the response at s = ∞ has.
            weight = weight * single.poles[0]
        poles, B, C = [], [], []
        for d, sign in enumerate((1.0, -1.0)[: system.directions]):
            b, c = single.B[0], sign * system.pairing * weight * single.C[0, d]
            level = np.sqrt(np.maximum(np.linalg.norm(c, axis=0), 1e-150) / np.linalg.norm(b, axis=1))
            poles.append(sign * mu)
            B.append(b * level[:, None])
            C.append(c / level)
        mu, b, c = np.concatenate(poles), np.concatenate(B), np.concatenate(C, axis=1)
        A = np.block([[np.diag(mu.real), -np.diag(mu.imag)], [np.diag(mu.imag), np.diag(mu.real)]])
        drive, read = np.concatenate([b.real, b.imag]), np.concatenate([c.real, -c.imag], axis=1)
        return cls(single, side, mu, A, drive, read, direct)

    @cached_property
    def modal(self) -> Modal:
        """What its response is computed from."""
        return Modal.of(self.system, 0)

    def on_a_grid(self) -> _Peak:
        """At the angle of every pole, a bandwidth to both sides of it, and on an even grid."""
        return self.highest(pole_grid(self.system.poles[0], offsets=(-1.0, 0.0, 1.0), real=True))

    def refined(self, peak: _Peak) -> float:
        """The maximum between the frequencies beside a peak."""
        return float(peak_gain(self.gains, peak.around, 1))

    def gains(self, omega: np.ndarray) -> np.ndarray:
        """Largest singular values at (K,) frequencies."""
        return np.concatenate([_largest(response) for response in self._responses(omega)])

    def highest(self, omega: np.ndarray) -> _Peak:
        """The largest of the gains at (K,) ascending frequencies.

        No singular value is above the Frobenius norm of its matrix, and that is known without the matrix: where it is
        below a gain that was found, there is none to be made.
        """
        best, where = -np.inf, 0
        most = self.modal.frobenius(omega)
        order = np.argsort(-most)
        for first in range(0, len(order), _AT_ONCE):
            chosen = order[first : first + _AT_ONCE]
            if most[chosen[0]] < best:
                break
            found = self.gains(omega[chosen])
            if found.max() > best:
                best, where = float(found.max()), int(chosen[found.argmax()])
        return _Peak(best, omega[[max(where - 1, 0), where, min(where + 1, len(omega) - 1)]])

    def _responses(self, omega: np.ndarray) -> Iterator[np.ndarray]:
        """The matrices of as many frequencies at a time as stay small."""
        size = max(1, 2**23 // (self.D.size + self.system.poles.size * self.system.outputs))
        for start in range(0, len(omega), size):
            yield self.modal.response(omega[start : start + size])

    def crossings(self, level: float) -> tuple[np.ndarray, bool]:
        """Frequencies in [0, π], all those at which a singular value is `level` among them, and whether that is sure.

        The spectrum of a Hamiltonian matrix is symmetric about the imaginary axis. How far the computed one is from
        that says how far its eigenvalues are from where they should be.
        """
        D, B, C = self.D / level, self.B / np.sqrt(level), self.C / np.sqrt(level)
        inner = np.linalg.solve(np.eye(D.shape[1]) - D.T @ D, np.concatenate([D.T @ C, B.T], axis=1))
        A = self.A + B @ inner[:, : len(self.A)]
        read = C.T @ np.linalg.solve(np.eye(len(D)) - D @ D.T, C)
        found = np.linalg.eigvals(np.block([[A, B @ inner[:, len(self.A) :]], [-read, -A.T]]))
        size = 1 + np.abs(found)
        error = (np.abs(found[:, None] + found.conj()).min(axis=1, initial=np.inf) / size).max(initial=0.0)
        near = np.abs(found.real) <= np.maximum(_NEAR, 10 * error) * size
        narrowest = (np.abs(self.mu.real) / (1 + np.abs(self.mu))).min(initial=np.inf)
        angle = 2 * np.arctan(found[near].imag)
        omega = np.abs(angle) if self.side > 0 else np.pi - np.abs(angle)
        return omega, bool(error < 0.1 * narrowest)


def _largest(matrices: np.ndarray) -> np.ndarray:
    """(K,) largest singular values of (K, p, m) matrices, by the eigenvalues of the smaller of G Gᴴ and Gᴴ G.

    The largest loses nothing by being squared, and takes half the time of a singular value decomposition.
    """
    adjoint = matrices.conj().swapaxes(1, 2)
    gram = matrices @ adjoint if matrices.shape[1] <= matrices.shape[2] else adjoint @ matrices
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0))


def _side(single: DiagonalSystem) -> tuple[float, np.ndarray]:
    """Which of z = -1 and z = 1 becomes s = ∞, as ±1, and the real response there.

    It should be far from every pole, and the gain there far from the highest.
    """
    ends = frequency_response(single, np.array([np.pi, 0.0]))[0].real
    gains = np.linalg.norm(ends, ord=2, axis=(1, 2))
    distance = np.array([np.abs(1 + single.poles).min(initial=2.0), np.abs(1 - single.poles).min(initial=2.0)])
    index = int(np.argmax(distance / (gains + 1e-6 * gains.max() + np.finfo(float).tiny)))
    return (1.0, -1.0)[index], ends[index]
