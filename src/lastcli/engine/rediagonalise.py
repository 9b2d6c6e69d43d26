"""From a reduced real system back to stored poles: diagonal form, conjugate pairs, real poles, empty slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lastcli.engine.system import DiagonalSystem

__all__ = ["INERT_POLE", "Modal", "Projection", "diagonalise", "pack"]

# The pole of an empty slot: stable, and with a finite logarithm for formats that store one.
INERT_POLE = 0.5

# Another processor adds in another order: a projection is never known better than this.
_LEAST_ROUNDING = 1e-12
# A pole is known where so many times the rounding does not move it to the next one.
_MARGIN = 4
# Eigenvectors of poles less sensitive than this lose no digits that matter.
_SENSITIVE = 300


@dataclass(frozen=True)
class Projection:
    """The balanced real system of one index set, x[k+1] = A x[k] + B u[k], y[k] = C x[k] + D u[k].

    Inputs and outputs of all groups of the set are stacked (outputs: group, direction, output).

    Attributes:
        A: (n, n).
        B: (n, M).
        C: (Q, n).
        D: (Q, M), without the layer's own D.
        causal: whether the layer reads its states after the update, so that C and D had one step split off.
        rounding: (n,), how far the leading k×k block of A may be from what exact arithmetic gives, k = 1..n.
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    causal: bool
    rounding: np.ndarray

    @property
    def rank(self) -> int:
        """n, the order of the whole balanced system."""
        return len(self.A)

    @classmethod
    def of(cls, system: DiagonalSystem, index: int, into: np.ndarray, onto: np.ndarray, causal: bool) -> Projection:
        """Project one index set: x = into·z and z = onto·x for the features x = [Re x; Im x] of the layer."""
        own = slice(index, None, system.sets)
        poles, P = system.poles[index], system.poles.shape[1]
        B = np.concatenate(list(system.B[own]), axis=1)
        C = system.pairing * system.C[own].reshape(-1, P)

        def turned(rows: np.ndarray) -> np.ndarray:
            """Λ times the features."""
            re, im = rows[:P], rows[P:]
            column = poles[:, None]
            return np.concatenate([column.real * re - column.imag * im, column.real * im + column.imag * re])

        drive, read = np.concatenate([B.real, B.imag]), np.concatenate([C.real, -C.imag], axis=1)
        moved = turned(into)
        return cls(
            A=onto @ moved,
            B=onto @ drive,
            C=read @ (moved if causal else into),
            D=read @ drive if causal else np.zeros((len(C), B.shape[1])),
            causal=causal,
            # The projection is oblique: rounding grows with the norms of both of its factors.
            rounding=np.maximum(np.finfo(float).eps * _leading_norms(into) * _leading_norms(onto.T), _LEAST_ROUNDING),
        )


@dataclass(frozen=True)
class Modal:
    """A real system in diagonal form: conjugate pairs (one of each, positive imaginary part) and real poles.

    Attributes:
        poles: (k,) complex; real ones have no imaginary part.
        B: (k, M) complex.
        C: (Q, k) complex; the output is Re(C x), so a pair counts with twice its residue.
        D: (Q or p, M) direct part that goes into the layer's D.
        condition: of the eigenvector matrix, 2-norm.
        slots: complex poles that must be stored; a pair that rounding might as well have made two real poles counts
            as two.
        resolved: False where poles nearly meet and rounding decides how near, and so how large the condition is.
    """

    poles: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    condition: float
    slots: int
    resolved: bool = True

    @property
    def radius(self) -> float:
        """Largest |λ|."""
        return float(np.abs(self.poles).max(initial=0.0))


def diagonalise(projection: Projection, order: int, mode: str) -> Modal:
    """The leading `order` states of a balanced system, the rest cut off or settled, in diagonal form."""
    A, B, C, D = _settled(projection, order) if mode == "perturbation" else _cut(projection, order)
    values, vectors = np.linalg.eig(A) if order else (np.zeros(0), np.zeros((0, 0)))
    condition = float(np.linalg.cond(vectors)) if order else 1.0
    rounding = float(projection.rounding[order - 1]) if order else 0.0
    upper = values.imag >= 0
    if not np.isfinite(condition) or condition > 1 / np.finfo(float).eps:
        # A double pole splits by the root of what disturbs it.
        slots = int(upper.sum()) + _uncertain_pairs(values, np.sqrt(rounding))
        return Modal(values[upper].astype(complex), B[:0], C[:, :0], D, np.inf, slots, resolved=False)
    reach, resolved = _reach(values, vectors, rounding)
    slots = int(upper.sum()) + _uncertain_pairs(values, reach)
    drive, read = np.linalg.solve(vectors, B.astype(complex))[upper], (C @ vectors)[:, upper]
    poles = values[upper].astype(complex)
    # A pair counts twice. A real pole is real throughout: rounding in its imaginary part would look like a feature.
    read = np.where(poles.imag > 0, 2 * read, read.real)
    drive = np.where(poles.imag[:, None] > 0, drive, drive.real)
    if projection.causal:
        # C x[k-1] = (C/λ)(x[k] - B u[k]): back to a read-out after the update.
        if np.abs(poles).min(initial=1) < np.sqrt(np.finfo(float).eps):
            return Modal(poles, drive, read, D, np.inf, slots, resolved)
        read = read / poles
        D = D - (read @ drive).real
    b, c = np.linalg.norm(drive, axis=1), np.linalg.norm(read, axis=0)
    level = np.where((b > 0) & (c > 0), np.sqrt(np.where(b > 0, c, 1) / np.where(b > 0, b, 1)), 1)
    level = np.where(level > 0, level, 1)
    return Modal(poles, drive * level[:, None], read / level, D, condition, slots, resolved)


def pack(system: DiagonalSystem, pinned: np.ndarray, modals: Sequence[Modal], states: int) -> DiagonalSystem:
    """A layer of `states` stored states: each set's pinned states as they are, then its modal ones, then inert ones.

    Args:
        system: the original layer.
        pinned: (sets, N) bool.
        modals: one a set.
        states: stored states of the result.
    """
    G, R, p, m, q = system.groups, system.directions, system.outputs, system.inputs, system.modes
    poles = np.full((G, states, q), INERT_POLE, complex)
    B = np.zeros((G, states, q, m), complex)
    C = np.zeros((G, R, p, states, q), complex)
    for index, modal in enumerate(modals):
        old = np.flatnonzero(pinned[index])
        for place, g in enumerate(range(index, G, system.sets)):
            own = (old[:, None] * q + np.arange(q)).ravel()
            poles[g, : len(old)] = system.poles[g, own].reshape(-1, q)
            B[g, : len(old)] = system.B[g, own].reshape(-1, q, m)
            C[g, :, :, : len(old)] = system.C[g][:, :, own].reshape(R, p, -1, q)
            drive = modal.B[:, place * m : (place + 1) * m]
            read = modal.C[place * R * p : (place + 1) * R * p].reshape(R, p, -1) / system.pairing
            _place(poles[g], B[g], C[g], len(old), modal.poles, drive, read)
    return system.replace(poles=poles.reshape(G, -1), B=B.reshape(G, -1, m), C=C.reshape(G, R, p, -1))


def _place(
    poles: np.ndarray, B: np.ndarray, C: np.ndarray, first: int, values: np.ndarray, drive: np.ndarray, read: np.ndarray
) -> None:
    """Write modal states into the slots from `first`: with two poles a slot, a pair shares one as conjugates."""
    slots = slice(first, first + len(values))
    if poles.shape[1] == 1:
        poles[slots, 0], B[slots, 0], C[..., slots, 0] = values, drive, read
        return
    for turn in (0, 1):
        both = (lambda part: part) if turn == 0 else np.conj
        poles[slots, turn], B[slots, turn], C[..., slots, turn] = both(values), both(drive), both(read) / 2


def _reach(values: np.ndarray, vectors: np.ndarray, rounding: float) -> tuple[np.ndarray, bool]:
    """How far rounding may move each eigenvalue, and whether those that are sensitive stay clear of each other.

    To first order, a change E of A moves λ_i by ‖x_i‖‖y_i‖‖E‖, with the right and left eigenvectors scaled to
    y_i x_i = 1 (Golub and Van Loan, Matrix Computations, section 7.2.2). Where that is as much as the distance to the
    next eigenvalue, vectors and condition are those of the rounding. Equal poles that are not sensitive do no harm.
    """
    sensitivity = np.linalg.norm(vectors, axis=0) * np.linalg.norm(np.linalg.inv(vectors), axis=1)
    reach = _MARGIN * rounding * sensitivity
    distance = np.abs(values[:, None] - values)
    np.fill_diagonal(distance, np.inf)
    meets = reach > distance.min(axis=1, initial=np.inf)
    return reach, not bool((meets & (sensitivity > _SENSITIVE)).any())


def _uncertain_pairs(values: np.ndarray, reach: np.ndarray | float) -> int:
    """Conjugate pairs so near the real axis that they may as well be two real poles."""
    return int(((values.imag > 0) & (2 * values.imag < reach)).sum())


def _leading_norms(columns: np.ndarray) -> np.ndarray:
    """Frobenius norm of the first k columns, k = 1..n."""
    return np.sqrt((columns**2).sum(axis=0).cumsum())


def _cut(projection: Projection, order: int) -> tuple[np.ndarray, ...]:
    part = slice(order)
    return projection.A[part, part], projection.B[part], projection.C[:, part], np.zeros_like(projection.D)


def _settled(projection: Projection, order: int) -> tuple[np.ndarray, ...]:
    """The rest z₂ at its steady state, z₂ = A₂₁ z₁ + A₂₂ z₂ + B₂ u."""
    A, B, C = projection.A, projection.B, projection.C
    keep, rest = slice(order), slice(order, None)
    inverse = np.linalg.inv(np.eye(len(A) - order) - A[rest, rest])
    onward, through = A[keep, rest] @ inverse, C[:, rest] @ inverse
    return (
        A[keep, keep] + onward @ A[rest, keep],
        B[keep] + onward @ B[rest],
        C[:, keep] + through @ A[rest, keep],
        projection.D + through @ B[rest],
    )
