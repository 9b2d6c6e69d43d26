"""Exchange of kept states: what backward elimination, which never takes a state back, leaves on the table.

A kept and a dropped state change places where that lowers the refitted error, the best pair first, until no pair does
(the exchange step of subset selection in regression: Miller, Subset Selection in Regression, 2002, section 3.7). With
A = (M_KK)⁻¹ and L = M_:K A, removing state i turns the covariance of a dropped state r, given the kept ones, into
P_r + L_ri (A_ii)⁻¹ L_riᵀ, so all pairs are judged without another inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lastcli.engine.elimination import eliminate
from lastcli.engine.embedding import kept_indices
from lastcli.engine.features import block_size
from lastcli.engine.moments import Moments
from lastcli.engine.regression import Regression, regression_of
from lastcli.engine.system import DiagonalSystem, sum_by_set

__all__ = ["exchange", "exchange_blocks", "select_states"]

Array = Any

# A swap must lower the error by this share: smaller gains do not survive the next batch of data.
_GAIN = 1e-3
# Only the cheapest kept states are offered for a swap; one that carries much is never worth it.
_OFFERED = 16
_MOST_SWAPS = 64


def select_states(
    system: DiagonalSystem, moments: Moments, count: int, *, pinned: np.ndarray | None = None
) -> np.ndarray:
    """The `count` states (sets, count) of every set to keep: backward elimination, then exchange.

    Args:
        system: the layer, NumPy float64.
        moments: `white_noise_moments(system)`, or of real inputs.
        count: states to keep in each set.
        pinned: (sets, N) bool, states that are kept in any case.
    """
    order = eliminate(system, moments, pinned=pinned).order
    kept = np.sort(order[:, system.states - count :], axis=1)
    return exchange(system, kept, moments, pinned=pinned)


def exchange(
    system: DiagonalSystem, kept: np.ndarray, moments: Moments, *, pinned: np.ndarray | None = None
) -> np.ndarray:
    """Kept states (sets, K) after all swaps that lower the refitted error; never worse than before.

    Args:
        system: the layer, NumPy float64.
        kept: (sets, K), where to start.
        moments: as for `eliminate`.
        pinned: (sets, N) bool, states that are never given away.
    """
    kept = np.sort(np.asarray(kept), axis=1)
    if kept.shape[1] == 0 or system.states == kept.shape[1]:
        return kept
    return exchange_blocks(regression_of(system, moments), block_size(system), kept, pinned)


def exchange_blocks(problem: Regression, size: int, kept: np.ndarray, pinned: np.ndarray | None = None) -> np.ndarray:
    """The same for blocks of `size` features; see `elimination.eliminate_blocks`."""
    sets, K = kept.shape
    kept = np.sort(np.asarray(kept), axis=1)
    states = problem.M.shape[1] // size
    if K in (0, states):
        return kept
    held = np.zeros((sets, states), dtype=bool) if pinned is None else np.asarray(pinned, dtype=bool)
    rows = np.arange(sets)
    for _ in range(min(_MOST_SWAPS, 4 * K)):
        fit = _Fit.of(problem, kept_indices(kept, len(problem.M), size), size)
        error = sum_by_set(problem.energy - fit.explained, sets)
        out, new, change = _best_swaps(fit, kept, held, sets, states)
        worth = change < -_GAIN * np.maximum(error, 0)
        if not worth.any():
            break
        kept[rows[worth], out[worth]] = new[worth]
        kept = np.sort(kept, axis=1)
    return kept


@dataclass(frozen=True)
class _Fit:
    """The read-out of the kept features K, and what it leaves of every feature; features come as blocks (n, b).

    A (G, K, b, K, b) inverse; L (G, N, b, K, b) regression of all features on the kept; V (G, p, K, b) read-out; P
    (G, N, b, b) and C (G, p, N, b) what is left of the features and of their product with the target. For a diagonal D
    also Z (G, p, K, b), Q (G, p, N, b), s (G, p), r (G, p): the same for each output's own input.
    """

    A: Array
    L: Array
    V: Array
    P: Array
    C: Array
    explained: np.ndarray
    direct: tuple[Array, Array, Array, Array] | None

    @classmethod
    def of(cls, problem: Regression, index: np.ndarray, b: int) -> _Fit:
        """Solve the problem for the features `index` (G, K·b)."""
        G, p, F = problem.X.shape
        K, N = index.shape[1] // b, F // b
        M_K = np.take_along_axis(problem.M, index[:, :, None], axis=1)  # (G, K·b, F)
        A = np.linalg.inv(np.take_along_axis(M_K, index[:, None, :], axis=2))
        L = M_K.swapaxes(1, 2) @ A

        def solve(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            X_K = np.take_along_axis(X, index[:, None, :], axis=2)
            return X_K, X_K @ A, X - X_K @ L.swapaxes(1, 2)

        X_K, V, C = solve(problem.X)
        explained = (V * X_K).sum(axis=(1, 2))
        blocks = np.arange(N)
        own = problem.M.reshape(G, N, b, N, b)[:, blocks, :, blocks].swapaxes(0, 1)
        L_blocks = L.reshape(G, N, b, K * b)
        P = own - np.einsum("gnik,gknj->gnij", L_blocks, M_K.reshape(G, K * b, N, b), optimize=True)
        # Nothing is left of a kept feature; any invertible block will do, for it is never asked about.
        np.put_along_axis(P, (index[:, ::b] // b)[:, :, None, None], np.eye(b), axis=1)
        direct = None
        if problem.Y is not None and problem.own is not None and problem.power is not None:
            Y_K, Z, Q = solve(problem.Y)
            s = np.maximum(problem.power - (Z * Y_K).sum(axis=2), 1e-12 * problem.power)
            r = problem.own - (V * Y_K).sum(axis=2)
            explained = explained + (r**2 / s).sum(axis=1)
            direct = (Z.reshape(G, p, K, b), Q.reshape(G, p, N, b), s, r)
        return cls(
            A.reshape(G, K, b, K, b), L.reshape(G, N, b, K, b), V.reshape(G, p, K, b), P, C.reshape(G, p, N, b),
            explained, direct,
        )  # fmt: skip

    def removals(self) -> np.ndarray:
        """What removing each kept state costs, (G, K)."""
        K = self.V.shape[2]
        every = np.arange(K)
        inverse = np.linalg.inv(self.A[:, every, :, every].swapaxes(0, 1))
        cost = _form(self.V, inverse, self.V)
        if self.direct is None:
            return cost.sum(axis=1)
        Z, _, s, r = (value[..., None] if value.ndim == 2 else value for value in self.direct)
        s_new, r_new = s + _form(Z, inverse, Z), r + _form(self.V, inverse, Z)
        return (cost + r**2 / s - r_new**2 / s_new).sum(axis=1)

    def swaps(self, i: np.ndarray) -> np.ndarray:
        """Change of the error (G, N) if the kept state at position i (G,) gives its place to each other state."""
        at = np.arange(len(i))
        inverse = np.linalg.inv(self.A[at, i, :, i])
        L = self.L[at, :, :, i]  # (G, N, b, b)
        L_inverse = L @ inverse[:, None]
        V, G_N = self.V[at, :, i], np.linalg.inv(self.P + L_inverse @ L.swapaxes(2, 3))
        C = self.C + np.einsum("gpk,gnjk->gpnj", V, L_inverse)
        lost = np.einsum("gpk,gkl,gpl->gp", V, inverse, V)[..., None]
        change = lost - _form(C, G_N, C)
        if self.direct is not None:
            Z, Q, s, r = self.direct
            Z = Z[at, :, i]
            Q = Q + np.einsum("gpk,gnjk->gpnj", Z, L_inverse)
            s_out = s + np.einsum("gpk,gkl,gpl->gp", Z, inverse, Z)
            r_out = r + np.einsum("gpk,gkl,gpl->gp", V, inverse, Z)
            s_in = np.maximum(s_out[..., None] - _form(Q, G_N, Q), 1e-12 * s_out[..., None])
            r_in = r_out[..., None] - _form(C, G_N, Q)
            change = change + (r**2 / s)[..., None] - r_in**2 / s_in
        return change.sum(axis=1)


def _form(left: np.ndarray, inverse: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left_n inverse_n right_nᵀ of every output and state: (G, p, n, b), (G, n, b, b) → (G, p, n)."""
    weighted = (left.swapaxes(1, 2) @ inverse).swapaxes(1, 2)
    return (weighted * right).sum(axis=-1)


def _best_swaps(
    fit: _Fit, kept: np.ndarray, held: np.ndarray, sets: int, states: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per set: the position given away, the state that comes in, and the change of the error (0 where none helps)."""
    rows = np.arange(sets)
    cost = sum_by_set(fit.removals(), sets)
    cost = np.where(np.take_along_axis(held, kept, axis=1), np.inf, cost)
    inside = np.zeros((sets, states), dtype=bool)
    np.put_along_axis(inside, kept, True, axis=1)
    member = np.arange(len(fit.A)) % sets
    out, new, best = np.zeros(sets, int), np.zeros(sets, int), np.zeros(sets)
    for position in np.argsort(cost, axis=1)[:, :_OFFERED].T:
        change = sum_by_set(fit.swaps(position[member]), sets)
        blocked = inside | ~np.isfinite(change) | ~np.isfinite(cost[rows, position])[:, None]
        change = np.where(blocked, np.inf, change)
        state = change.argmin(axis=1)
        better = change[rows, state] < best
        out, new = np.where(better, position, out), np.where(better, state, new)
        best = np.where(better, change[rows, state], best)
    return out, new, best
