"""What every exchange of a kept state for a dropped one would change, and the fit after one of them.

With A = (M_KK)⁻¹ and L = M_:K A, removing state i turns the covariance of a dropped state r, given the kept ones, into
P_r + L_ri (A_ii)⁻¹ L_riᵀ, so all pairs are judged without another inverse.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from lastcli.engine.regression import Regression

__all__ = ["Fit", "Offers"]

Array = Any


@dataclass(frozen=True)
class Fit:
    """The read-out of the kept features K, and what it leaves of every feature; features come as blocks (n, b).

    A (G, K, b, K, b) inverse of M_KK; L (G, N, b, K, b) regression of all features on the kept; V (G, p, K, b) the
    read-out; P (G, N, b, b) and C (G, p, N, b) what is left of the features and of their product with the target. For a
    diagonal D also Z (G, p, K, b), Q (G, p, N, b), s (G, p), r (G, p): the same for each output's own input.
    """

    A: Array
    L: Array
    V: Array
    P: Array
    C: Array
    explained: np.ndarray
    direct: tuple[Array, Array, Array, Array] | None

    @classmethod
    def of(cls, problem: Regression, index: np.ndarray, b: int) -> Fit:
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
        V = _by_state(self.V)
        cost = (inverse * (V @ V.swapaxes(2, 3))).sum(axis=(2, 3))
        if self.direct is None:
            return cost
        Z, _, s, r = self.direct
        Z = _by_state(Z)
        inverse_Z = inverse @ Z
        s_new, r_new = s[:, None] + _over_features(Z, inverse_Z), r[:, None] + _over_features(V, inverse_Z)
        return cost + (r**2 / s).sum(axis=1)[:, None] - (r_new**2 / s_new).sum(axis=2)

    def exchanged(
        self, problem: Regression, kept: np.ndarray, groups: np.ndarray, i: np.ndarray, new: np.ndarray
    ) -> Fit:
        """The fit in which kept states have given their places to others: two changes of low rank, no inverse anew.

        The arrays of this one are used up.

        Args:
            problem: that this is a fit of.
            kept: (G, K), the kept states so far.
            groups: (g,), the groups in which something changes.
            i: (g,), positions among the kept states.
            new: (g,), the states that come to these positions.
        """
        part = _Part.of(self, groups)
        part.leave(i, kept[groups, i])
        kept = kept.copy()
        kept[groups, i] = new
        part.enter(problem, kept[groups], i, new)
        return part.back_in(self, problem, kept)


@dataclass(frozen=True)
class Offers:
    """What states that are not kept would say in the place of a kept one."""

    fit: Fit
    L: np.ndarray  # (G, n, b, K, b)
    P: np.ndarray  # (G, n, b, b)
    C: np.ndarray  # (G, n, b, p)
    Q: np.ndarray | None  # (G, n, b, p)

    @classmethod
    def of(cls, fit: Fit, states: np.ndarray) -> Offers:
        """Of the dropped states (G, n), as many in every group."""
        at = np.arange(len(states))[:, None]

        def of_states(left: np.ndarray) -> np.ndarray:
            return _by_state(np.take_along_axis(left, states[:, None, :, None], axis=2))

        Q = None if fit.direct is None else of_states(fit.direct[1])
        return cls(fit, fit.L[at, states], fit.P[at, states], of_states(fit.C), Q)

    def changes(self, i: np.ndarray) -> np.ndarray:
        """Change of the error (G, n) if the kept state at position i (G,) gives its place to each of the states."""
        fit, at = self.fit, np.arange(len(i))
        inverse = np.linalg.inv(fit.A[at, i, :, i])
        L = self.L[at, :, :, i]  # (G, n, b, b)
        L_inverse = L @ inverse[:, None]
        inside = np.linalg.inv(self.P + L_inverse @ L.swapaxes(2, 3))

        def without(left: np.ndarray, read: np.ndarray) -> np.ndarray:
            """What is left of the products of the states with a target, (G, n, b, p), once state i is gone."""
            G, n, b, _ = L.shape
            return left + (L_inverse.reshape(G, n * b, b) @ read.swapaxes(1, 2)).reshape(left.shape)

        V = fit.V[at, :, i]  # (G, p, b)
        C = without(self.C, V)
        # summed over the outputs, a form needs no more than the products of the features with each other
        change = ((V @ inverse) * V).sum(axis=(1, 2))[:, None] - (inside * (C @ C.swapaxes(2, 3))).sum(axis=(2, 3))
        if fit.direct is None or self.Q is None:
            return change
        Z, _, s, r = fit.direct
        Z = Z[at, :, i]
        Q = without(self.Q, Z)
        inside_Q = inside @ Q
        s_out, r_out = s + ((Z @ inverse) * Z).sum(axis=2), r + ((V @ inverse) * Z).sum(axis=2)
        s_in = np.maximum(s_out[:, None] - _over_features(Q, inside_Q), 1e-12 * s_out[:, None])
        r_in = r_out[:, None] - _over_features(C, inside_Q)
        return change + (r**2 / s).sum(axis=1)[:, None] - (r_in**2 / s_in).sum(axis=2)


@dataclass
class _Part:
    """The arrays of a `Fit` for some of its groups, which change in place; features flat, (g, ·, n·b)."""

    groups: np.ndarray
    size: int
    A: np.ndarray
    L: np.ndarray
    P: np.ndarray
    reads: list[np.ndarray]
    left: list[np.ndarray]
    s: np.ndarray | None
    r: np.ndarray | None

    @classmethod
    def of(cls, fit: Fit, groups: np.ndarray) -> _Part:
        g, b = len(groups), fit.L.shape[2]

        def flat(array: np.ndarray, rows: int) -> np.ndarray:
            return array[groups].reshape(g, rows, -1)

        K, F, p = fit.A.shape[1] * b, fit.L.shape[1] * b, fit.V.shape[1]
        reads, left, s, r = [flat(fit.V, p)], [flat(fit.C, p)], None, None
        if fit.direct is not None:
            Z, Q, s, r = fit.direct
            reads, left, s, r = [*reads, flat(Z, p)], [*left, flat(Q, p)], s[groups], r[groups]
        return cls(groups, b, flat(fit.A, K), flat(fit.L, F), fit.P[groups], reads, left, s, r)

    def leave(self, i: np.ndarray, gone: np.ndarray) -> None:
        """The kept states at positions i (g,), the states `gone` (g,), are kept no longer."""
        at, own = self._of_blocks(i)
        G = np.linalg.inv(self.A[at, own[:, :, None], own[:, None, :]])
        L_i = np.take_along_axis(self.L, own[:, None, :], axis=2)
        row = G @ np.take_along_axis(self.A, own[:, :, None], axis=1)
        if self.s is not None and self.r is not None:
            V_i, Z_i = (np.take_along_axis(read, own[:, None, :], axis=2) for read in self.reads)
            self.s, self.r = self.s + ((Z_i @ G) * Z_i).sum(axis=2), self.r + ((V_i @ G) * Z_i).sum(axis=2)
        for read, left in zip(self.reads, self.left):
            own_part = np.take_along_axis(read, own[:, None, :], axis=2)
            left += own_part @ G @ L_i.swapaxes(1, 2)
            read -= own_part @ row
            np.put_along_axis(read, own[:, None, :], 0, axis=2)
        blocks = L_i.reshape(len(G), -1, self.size, self.size)
        self.P += blocks @ G[:, None] @ blocks.swapaxes(2, 3)
        self.P[at[:, 0, 0], gone] = G  # of itself nothing was left
        self.A -= np.take_along_axis(self.A, own[:, None, :], axis=2) @ row
        self.L -= L_i @ row
        np.put_along_axis(self.L, own[:, None, :], 0, axis=2)
        np.put_along_axis(self.A, own[:, None, :], 0, axis=2)
        np.put_along_axis(self.A, own[:, :, None], 0, axis=1)

    def enter(self, problem: Regression, kept: np.ndarray, i: np.ndarray, new: np.ndarray) -> None:
        """The states `new` (g,) come to the empty positions i (g,); kept (g, K) has them already."""
        at, own = self._of_blocks(i)
        _, features = self._of_blocks(new)
        M = problem.M[self.groups[:, None, None], np.arange(problem.M.shape[1])[None, :, None], features[:, None, :]]
        index = (kept[:, :, None] * self.size + np.arange(self.size)).reshape(len(kept), -1)
        R = M - self.L @ np.take_along_axis(M, index[:, :, None], axis=1)
        S = np.linalg.inv(self.P[at[:, 0, 0], new])
        row = np.take_along_axis(self.L, features[:, :, None], axis=1)
        parts = [np.take_along_axis(left, features[:, None, :], axis=2) for left in self.left]
        if self.s is not None and self.r is not None and problem.power is not None:
            C_j, Q_j = parts
            floor = 1e-12 * problem.power[self.groups]
            self.s = np.maximum(self.s - ((Q_j @ S) * Q_j).sum(axis=2), floor)
            self.r = self.r - ((C_j @ S) * Q_j).sum(axis=2)
        for read, left, part in zip(self.reads, self.left, parts):
            left -= part @ S @ R.swapaxes(1, 2)
            read -= part @ (S @ row)
            np.put_along_axis(read, own[:, None, :], part @ S, axis=2)
        blocks = R.reshape(len(S), -1, self.size, self.size)
        self.P -= blocks @ S[:, None] @ blocks.swapaxes(2, 3)
        self.P[at[:, 0, 0], new] = np.eye(self.size)
        self.L -= R @ (S @ row)
        np.put_along_axis(self.L, own[:, None, :], R @ S, axis=2)
        self.A += row.swapaxes(1, 2) @ (S @ row)
        np.put_along_axis(self.A, own[:, :, None], -S @ row, axis=1)
        np.put_along_axis(self.A, own[:, None, :], -(S @ row).swapaxes(1, 2), axis=2)
        self.A[at, own[:, :, None], own[:, None, :]] = S

    def back_in(self, fit: Fit, problem: Regression, kept: np.ndarray) -> Fit:
        """The whole fit with these groups as they are now."""
        b, groups = self.size, self.groups
        K = kept.shape[1]
        index = (kept[groups, :, None] * b + np.arange(b)).reshape(len(groups), -1)
        explained = fit.explained.copy()
        X_K = np.take_along_axis(problem.X[groups], index[:, None, :], axis=2)
        explained[groups] = (self.reads[0] * X_K).sum(axis=(1, 2))
        fit.A[groups] = self.A.reshape(-1, K, b, K, b)
        fit.L[groups] = self.L.reshape(len(groups), -1, b, K, b)
        fit.P[groups] = self.P
        for whole, own in zip((fit.V, *fit.direct[:1]) if fit.direct else (fit.V,), self.reads):
            whole[groups] = own.reshape(len(groups), -1, K, b)
        for whole, own in zip((fit.C, *fit.direct[1:2]) if fit.direct else (fit.C,), self.left):
            whole[groups] = own.reshape(len(groups), own.shape[1], -1, b)
        if fit.direct is not None and self.s is not None and self.r is not None:
            explained[groups] += (self.r**2 / self.s).sum(axis=1)
            fit.direct[2][groups], fit.direct[3][groups] = self.s, self.r
        return dataclasses.replace(fit, explained=explained)

    def _of_blocks(self, i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(g, 1, 1) places of the groups, and (g, b) those of the features of one block each."""
        return np.arange(len(i))[:, None, None], i[:, None] * self.size + np.arange(self.size)


def _by_state(values: np.ndarray) -> np.ndarray:
    """(G, p, n, b) → (G, n, b, p): a product with the small blocks of n states is then one with rows of p numbers."""
    return np.ascontiguousarray(np.moveaxis(values, 1, 3))


def _over_features(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Products summed over the features of a state, (G, n, b, p) → (G, n, p)."""
    return np.einsum("gnbp,gnbp->gnp", left, right)
