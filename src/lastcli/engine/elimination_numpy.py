"""Backward elimination of one group by NumPy: what a CPU runs for MIMO layers. The mathematics is in `elimination`.

The arrays lose a state when it goes: the last state takes its place, so that what is left lies at the beginning of
every array, and a step costs what is left costs. Nothing is compiled, and layers may be eliminated side by side.
"""

from __future__ import annotations

import math

import numpy as np

from lastcli.engine.downdating import DRIFT, MOST_REFRESHES, PROBES, UNROLLED, signs
from lastcli.engine.readout import FLOOR
from lastcli.engine.regression import Regression

__all__ = ["removed"]


@np.errstate(divide="ignore", invalid="ignore", over="ignore")  # a cost that is not finite is none
def removed(problem: Regression, size: int, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All states of the one group of a problem, in the order in which they go.

    Args:
        problem: over N blocks of `size` features each, one block after the other; one group.
        size: features of a state.
        held: (1, N) bool, states that go last.

    Returns:
        Their indices (1, N), and (2, 1, N) squared error and objective once each has gone.
    """
    left = _Left(problem, size)
    held = held[0].copy()
    order, values = np.empty((1, len(held)), int), np.empty((2, 1, len(held)))
    since, shortest = 0, len(held) // MOST_REFRESHES
    left.solve()
    for step in range(len(held)):
        while True:
            cost = left.costs()
            q = _cheapest(cost, held[: len(cost)], left.index)
            column = left.column(q)
            if since <= shortest or left.drift(column, q) <= DRIFT:
                break
            left.solve()
            since = 0
        order[0, step] = left.index[q]
        held[q] = held[len(cost) - 1]
        left.remove(q, column, cost[q])
        since += 1
        values[:, 0, step] = left.objective - left.ridge_share(), left.objective
    return order, values


def _cheapest(cost: np.ndarray, held: np.ndarray, index: np.ndarray) -> int:
    """Where the cheapest state is, one that is not held if there is any; of equals the first of the layer."""
    if not held.all():
        cost = np.where(held, np.inf, cost)
    equal = np.flatnonzero(cost == cost.min())
    return int(equal[index[equal].argmin()])


class _Left:
    """The refitted read-out over the n states that are left, and the inverse that it is downdated with.

    Attributes:
        index: (n,) which states of the layer they are.
        objective: squared error and ridge.
        V: (n, p, b), the read-out, where D is diagonal for the target without each output's own input.
        Z, s, r: for a diagonal D (n, p, b), the same for the own inputs as targets; (p,), what is left of those; and
            (p,), how the rest of the target depends on that. Else None.
        blocks: (n, b, b), the blocks of the inverse on its diagonal.
    """

    def __init__(self, problem: Regression, size: int) -> None:
        self._problem, self._b = problem, size
        self._M = np.asarray(problem.M)[0]
        self.index = np.arange(len(self._M) // size)
        # columns cost in proportion to it, the products that put them in to 1 / it
        self._together = max(1, math.isqrt(len(self.index)))
        self._W: np.ndarray | None = None

    def solve(self) -> None:
        """Everything from the problem itself."""
        problem, b, n = self._problem, self._b, len(self.index)
        features = self._features()
        M = self._M[np.ix_(features, features)]
        self._A = _inverse(M)
        self._columns = np.empty((self._together * b, n * b))
        self._rows = np.empty_like(self._columns)
        self._delayed = 0
        self._z = signs(PROBES, len(self._M))[:, features]
        self._zM = self._z @ M
        X = np.asarray(problem.X)[0][:, features]
        self.V = self._by_state(X @ self._A)
        left = float(np.asarray(problem.energy)[0]) - float((self.V * self._by_state(X)).sum())
        self.Z: np.ndarray | None = None
        self.s = self.r = np.empty(0)
        if problem.Y is not None and problem.own is not None and problem.power is not None:
            Y, power = np.asarray(problem.Y)[0][:, features], np.asarray(problem.power)[0]
            self.Z = self._by_state(Y @ self._A)
            Y = self._by_state(Y)
            self.s = np.maximum(power - (self.Z * Y).sum(axis=(0, 2)), FLOOR * power)
            self.r = np.asarray(problem.own)[0] - (self.V * Y).sum(axis=(0, 2))
            left -= float((self.r**2 / self.s).sum())
        diagonal = np.arange(n)
        self.blocks = self._A.reshape(n, b, n, b)[diagonal, :, diagonal]
        self.objective, self._W = left, None

    def costs(self) -> np.ndarray:
        """What removing each state next costs, (n,)."""
        inverse, W = _inverses(self.blocks), self._read_out()
        # of all outputs together: the Gram matrix of a state's read-out, weighted
        cost = (np.matmul(W.swapaxes(1, 2), W) * inverse).sum(axis=(1, 2))
        if self.Z is not None:
            weighted = np.matmul(self.Z, inverse)
            shared = _over_block(W, weighted)
            cost -= (shared**2 / (self.s + _over_block(self.Z, weighted))).sum(axis=1)
        return np.where(np.isfinite(cost), np.maximum(cost, 0), 0)

    def column(self, q: int) -> np.ndarray:
        """The columns of state q in the inverse, (b, n·b); by symmetry its rows."""
        own, delayed = self._own(q), slice(self._delayed * self._b)
        return self._A[own] - self._columns[delayed, own].T @ self._rows[delayed]

    def drift(self, column: np.ndarray, q: int) -> float:
        """How far M times the inverse is from the identity in the columns of state q; see `downdating.Probe`."""
        off = self._zM @ column.T - self._z[:, self._own(q)]
        return float(np.sqrt((off**2).mean(axis=0)).max())

    def remove(self, q: int, column: np.ndarray, cost: float) -> None:
        """Take a state away, whose columns of the inverse are `column` and which costs so much."""
        b, n, own = self._b, len(self.index), self._own(q)
        inverse = _inverses(column[None, :, own])[0]
        row = inverse @ column
        each, each_row = column.reshape(b, n, b).transpose(1, 2, 0), row.reshape(b, n, b).swapaxes(0, 1)
        self.blocks -= np.matmul(each, each_row)
        if self.Z is not None:
            own_Z = self.Z[q].copy()
            weighted = own_Z @ inverse
            self.s = self.s + (weighted * own_Z).sum(axis=1)
            self.r = self.r + (weighted * self.V[q]).sum(axis=1)
            self.Z -= np.matmul(own_Z, each_row)
        self.V -= np.matmul(self.V[q].copy(), each_row)
        at = slice(self._delayed * b, (self._delayed + 1) * b)
        self._columns[at], self._rows[at] = column, row
        self._delayed += 1
        self.objective, self._W = self.objective + cost, None
        self._zM -= self._z[:, own] @ self._M[np.ix_(self._features()[own], self._features())]
        if self._delayed == self._together:
            self._A -= self._columns.T @ self._rows
            self._delayed = 0
        self._close(q)

    def ridge_share(self) -> float:
        """What of the objective is the ridge: it holds the read-out and D small, but is no error."""
        problem, W = self._problem, self._read_out()
        share = float(problem.ridge) * float(np.vdot(W, W))
        if problem.floor is None:
            return share
        floor = np.asarray(problem.floor)[0]
        if self.Z is not None:
            return share + float((floor * (self.r / self.s) ** 2).sum())
        if problem.absorbed is None or problem.absorbs is None:
            return share
        flat = np.ascontiguousarray(W.swapaxes(0, 1)).reshape(W.shape[1], -1)
        D = np.asarray(problem.absorbed)[0] - flat @ np.asarray(problem.absorbs)[0][:, self._features()].T
        return share + float((floor * D**2).sum())

    def _read_out(self) -> np.ndarray:
        """(n, p, b), kept until a state goes."""
        if self._W is None:
            self._W = self.V if self.Z is None else self.V - (self.r / self.s)[:, None] * self.Z
        return self._W

    def _features(self) -> np.ndarray:
        return (self.index[:, None] * self._b + np.arange(self._b)).reshape(-1)

    def _own(self, q: int) -> slice:
        return slice(q * self._b, (q + 1) * self._b)

    def _by_state(self, values: np.ndarray) -> np.ndarray:
        """(p, n·b) as (n, p, b)."""
        return np.ascontiguousarray(values.reshape(len(values), -1, self._b).swapaxes(0, 1))

    def _close(self, q: int) -> None:
        """The last state takes the place of the one that has gone."""
        n = len(self.index) - 1
        own, last, end = self._own(q), self._own(n), n * self._b
        for first in (self.index, self.V, self.Z, self.blocks):
            if first is not None:
                first[q] = first[n]
        self._A[own] = self._A[last]
        for wide in (self._A, self._columns, self._rows, self._z, self._zM):
            wide[:, own] = wide[:, last]
        self.index, self.V, self.blocks = self.index[:n], self.V[:n], self.blocks[:n]
        self.Z = None if self.Z is None else self.Z[:n]
        self._A, self._z, self._zM = self._A[:end, :end], self._z[:, :end], self._zM[:, :end]
        self._columns, self._rows = self._columns[:, :end], self._rows[:, :end]


def _over_block(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Σ over the block's features of left ∘ right, both (n, p, b): (n, p)."""
    # a product with ones goes through memory once; a sum over so short an axis is a call for each of its results
    return np.matmul(left * right, np.ones(left.shape[2]))


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """NaN where there is none."""
    try:
        return np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return np.full(matrix.shape, np.nan)


def _inverses(blocks: np.ndarray) -> np.ndarray:
    """Inverses of (n, b, b) symmetric positive definite blocks; what has none becomes infinite or NaN."""
    size = blocks.shape[1]
    if size > UNROLLED:
        return _inverse(blocks)
    left = np.array(blocks.transpose(1, 2, 0), order="C")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for k in range(size):
            pivot = 1 / left[k, k]
            row = left[k] * pivot
            row[k] = pivot
            factor = left[:, k].copy()
            factor[k] = 0
            left[:, k] = 0
            left -= factor[:, None] * row
            left[k] = row
    return np.ascontiguousarray(left.transpose(2, 0, 1))
