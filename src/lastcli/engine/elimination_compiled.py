"""Backward elimination as a compiled program, over all groups of a layer at once: for accelerators, and for the many
small problems of multi-SISO layers. The mathematics is in `elimination`.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.ahead import Ahead
from lastcli.engine.downdating import DRIFT, MOST_REFRESHES, UNROLLED, Inverse, Probe
from lastcli.engine.embedding import kept_indices
from lastcli.engine.readout import FLOOR
from lastcli.engine.regression import Regression
from lastcli.engine.system import sum_by_set

__all__ = ["removed"]

Array = Any

# Up to this many states the arrays are not cut down on the way: another compilation costs more than it saves.
_SMALLEST_STAGE = 128


def removed(problem: Regression, size: int, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All states in the order in which they go.

    Args:
        problem: over N blocks of `size` features each, one block after the other; group g belongs to set g % sets.
        size: features of a state.
        held: (sets, N) bool, states that go last.

    Returns:
        Their indices (sets, N), and (2, sets, N) squared error and objective once each has gone.
    """
    sets, states = held.shape
    steps: list[np.ndarray] = []
    values: list[np.ndarray] = []
    left = np.tile(np.arange(states), (sets, 1))
    for n, count in _stages(states):
        _STAGE.begin(*_shapes(problem, sets, size, n), sets=sets, count=count)
    for n, count in _stages(states):
        part = _restrict(problem, kept_indices(left, len(problem.M), size), size)
        local, value = _STAGE(part, held, sets=sets, count=count)
        steps.append(np.take_along_axis(left, local, axis=1))
        values.append(value)
        gone = np.zeros(left.shape, dtype=bool)
        np.put_along_axis(gone, local, True, axis=1)
        left, held = left[~gone].reshape(sets, n - count), held[~gone].reshape(sets, n - count)
    return np.concatenate(steps, axis=1), np.concatenate(values, axis=2)


def _stages(states: int) -> list[tuple[int, int]]:
    """(states, how many of them go) of every stage."""
    stages = []
    while states:
        # Once three quarters are gone the arrays are cut down: less work.
        count = states if states <= _SMALLEST_STAGE else states - states // 4
        stages.append((states, count))
        states -= count
    return stages


def _shapes(problem: Regression, sets: int, size: int, states: int) -> tuple[Regression, Array]:
    """Shapes and dtypes of what `_stage` is given once so many states are left: `_restrict`, and what is held."""

    def shape(array: np.ndarray, *axes: int) -> Array:
        return jax.ShapeDtypeStruct(axes or array.shape, array.dtype)

    def columns(array: np.ndarray | None) -> Array:
        return None if array is None else shape(array, *array.shape[:2], size, states)

    whole = jax.tree.map(lambda array: shape(np.asarray(array)), problem)
    part = dataclasses.replace(
        whole,
        M=shape(problem.M, len(problem.M), size * states, size * states),
        X=columns(problem.X),
        Y=columns(problem.Y),
        absorbs=columns(problem.absorbs),
    )
    return part, jax.ShapeDtypeStruct((sets, states), np.dtype(bool))


def _restrict(problem: Regression, index: np.ndarray, size: int) -> Regression:
    """The problem of the features (G, n·b) only, in the loop's layout: feature axes as (b, n)."""
    G, count = index.shape
    order = index.reshape(G, count // size, size).swapaxes(1, 2).reshape(G, count)

    def columns(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        picked = np.take_along_axis(array, order[:, None, :], axis=2)
        return picked.reshape(*picked.shape[:2], size, -1)

    rows = np.take_along_axis(problem.M, order[:, :, None], axis=1)
    return dataclasses.replace(
        problem,
        M=np.take_along_axis(rows, order[:, None, :], axis=2),
        X=columns(problem.X),
        Y=columns(problem.Y),
        absorbs=columns(problem.absorbs),
    )


class _Fit(NamedTuple):
    """The refitted read-out of the states that are left; what belongs to states that have gone is zero.

    Attributes:
        V: (G, p, b, n), the read-out, where D is diagonal for the target without each output's own input.
        direct: None, or for a diagonal D Z (G, p, b, n), the same for the own inputs as targets, s (G, p), what is left
            of those, and r (G, p), how the rest of the target depends on that.
        blocks: (G, b, b, n), the blocks of the inverse of M on its diagonal, one of every state.
        objective: (sets,), squared error and ridge.
    """

    V: Array
    direct: tuple[Array, Array, Array] | None
    blocks: Array
    objective: Array


@partial(jax.jit, static_argnames=("sets", "count"))
def _stage(problem: Regression, held: Array, *, sets: int, count: int) -> tuple[Array, Array]:
    """Remove `count` states: their indices in order (sets, count), and (2, sets, count) error and objective after."""
    G, _, b, n = problem.X.shape
    member, rows = jnp.arange(G) % sets, jnp.arange(sets)
    shortest = n // MOST_REFRESHES
    # Columns cost in proportion to it, the products that put them in to 1 / it.
    together = math.isqrt(n)

    def pick(fit: _Fit, alive: Array) -> tuple[Array, Array]:
        cost = sum_by_set(_costs(fit), sets)
        cost = jnp.where(jnp.isfinite(cost), jnp.maximum(cost, 0), 0)
        # Two keys in one comparison: a held state loses against every other, a removed one against all.
        first = jnp.where(alive & ~held, cost, jnp.inf)
        second = jnp.where(alive, cost, jnp.inf)
        q = jnp.argmin(jnp.where(jnp.isfinite(first).any(axis=1, keepdims=True), first, second), axis=1)
        return q, cost[rows, q]

    def some(carry: tuple) -> tuple:
        """As many as are put into the inverse at once, fewer where rounding has spoilt it."""
        A, fit, alive, stale, since, done, chosen, values = carry
        A, fit = jax.lax.cond(stale, lambda: _solved(problem, alive, sets), lambda: (A, fit))
        here = jnp.tile(alive[member], (1, b))
        inverse, probe = Inverse.of(A, b, together), Probe.of(problem.M, here, b)
        start = (fit, inverse, probe, alive, jnp.where(stale, 0, since), 0, chosen, values, False)
        fit, inverse, _, alive, since, taken, chosen, values, stale = jax.lax.while_loop(
            lambda carry: ~carry[-1] & (carry[5] < together) & (done + carry[5] < count),
            lambda carry: step(carry, done),
            start,
        )
        return inverse.settled(), fit, alive, stale, since, done + taken, chosen, values

    def step(carry: tuple, done: Array) -> tuple:
        """Take the cheapest state away, unless rounding has spoilt what is known about it."""
        fit, inverse, probe, alive, since, taken, chosen, values, _ = carry
        q, cost = pick(fit, alive)
        column = inverse.column(q[member])
        stale = (since > shortest) & (probe.drift(column, alive[member], q[member]) > DRIFT)

        def taken_away() -> tuple:
            less, row = _downdated(fit, column, q[member], cost)
            value = jnp.stack([less.objective - sum_by_set(_ridge_share(problem, less), sets), less.objective])
            return (
                less,
                inverse.changed(taken, column, row),
                probe.without(problem.M, q[member]),
                alive.at[rows, q].set(False),
                since + 1,
                taken + 1,
                chosen.at[:, done + taken].set(q),
                values.at[:, :, done + taken].set(value),
                False,
            )

        return jax.lax.cond(stale, lambda: (*carry[:-1], True), taken_away)

    everything = jnp.ones((sets, n), bool)
    chosen, values = jnp.zeros((sets, count), int), jnp.zeros((2, sets, count))
    # nothing solved yet, which is as stale as can be
    nothing = jax.tree.map(
        lambda found: jnp.zeros(found.shape, found.dtype), jax.eval_shape(lambda: _solved(problem, everything, sets))
    )
    start = (*nothing, everything, True, 0, 0, chosen, values)
    *_, chosen, values = jax.lax.while_loop(lambda carry: carry[5] < count, some, start)
    return chosen, values


_STAGE = Ahead(_stage)


def _solved(problem: Regression, alive: Array, sets: int) -> tuple[Array, _Fit]:
    """The inverse (G, b·n, b·n) and the fit of the states that are left (sets, n), from the problem itself."""
    G, p, b, n = problem.X.shape
    here = jnp.tile(alive[jnp.arange(G) % sets], (1, b))
    pairs = here[:, :, None] & here[:, None, :]
    inverse = jnp.where(pairs, jnp.linalg.inv(jnp.where(pairs, problem.M, jnp.eye(b * n))), 0)
    V = (problem.X.reshape(G, p, b * n) @ inverse).reshape(G, p, b, n)
    left = problem.energy - (V * problem.X).sum(axis=(1, 2, 3))
    direct = None
    if problem.Y is not None and problem.own is not None and problem.power is not None:
        Z = (problem.Y.reshape(G, p, b * n) @ inverse).reshape(G, p, b, n)
        s = jnp.maximum(problem.power - (Z * problem.Y).sum(axis=(2, 3)), FLOOR * problem.power)
        r = problem.own - (V * problem.Y).sum(axis=(2, 3))
        left = left - (r**2 / s).sum(axis=1)
        direct = (Z, s, r)
    blocks = jnp.diagonal(inverse.reshape(G, b, n, b, n), axis1=2, axis2=4)
    return inverse, _Fit(V, direct, blocks, sum_by_set(left, sets))


def _ridge_share(problem: Regression, fit: _Fit) -> Array:
    """(G,) what of the objective is the ridge: it holds the read-out and D small, but is no error."""
    W, D = fit.V, None
    if fit.direct is not None:
        Z, s, r = fit.direct
        D = r / s
        W = W - D[:, :, None, None] * Z
    elif problem.absorbed is not None:
        D = problem.absorbed - jnp.einsum("gpbn,gmbn->gpm", W, problem.absorbs)
    share = problem.ridge * (W**2).sum(axis=(1, 2, 3))
    if D is None or problem.floor is None:
        return share
    floor = problem.floor if D.ndim == 2 else problem.floor[:, None]
    return share + (floor * D**2).reshape(len(D), -1).sum(axis=1)


def _costs(fit: _Fit) -> Array:
    """What removing each state next costs, (G, n)."""
    inverse, V = _invert_blocks(fit.blocks), fit.V  # (G, b, b, n)
    if fit.direct is None:
        return _quadratic(V, inverse, V).sum(axis=1)
    Z, s, r = fit.direct
    W = V - (r / s)[:, :, None, None] * Z
    alone, shared = _quadratic(W, inverse, W), _quadratic(W, inverse, Z)
    return (alone - shared**2 / (s[:, :, None] + _quadratic(Z, inverse, Z))).sum(axis=1)


def _quadratic(left: Array, inverse: Array, right: Array) -> Array:
    """left_q A_qq⁻¹ right_qᵀ of every output and state, (G, p, n); unrolled over a small block so that it fuses."""
    size = left.shape[2]
    if size > UNROLLED:
        return jnp.einsum("gpin,gijn,gpjn->gpn", left, inverse, right, optimize=True)
    pairs = [(i, j) for i in range(size) for j in range(size)]
    return sum(left[:, :, i] * inverse[:, None, i, j] * right[:, :, j] for i, j in pairs)


def _invert_blocks(blocks: Array) -> Array:
    """Inverses of (G, b, b, n) symmetric positive definite blocks by Gauss-Jordan steps, unrolled over a small b."""
    size = blocks.shape[1]
    if size > UNROLLED:
        return jnp.moveaxis(jnp.linalg.inv(jnp.moveaxis(blocks, 3, 1)), 1, 3)
    left = [[blocks[:, i, j] for j in range(size)] for i in range(size)]
    for k in range(size):
        pivot = 1 / left[k][k]
        row = [value * pivot for value in left[k]]
        row[k] = pivot
        for i in range(size):
            if i != k:
                factor = left[i][k]
                left[i] = [(0 if j == k else left[i][j]) - factor * row[j] for j in range(size)]
        left[k] = row
    return jnp.stack([jnp.stack(row, axis=1) for row in left], axis=1)


def _downdated(fit: _Fit, column: Array, q: Array, cost: Array) -> tuple[_Fit, Array]:
    """The fit without the states q (G,), whose columns of the inverse are `column`; and G A_q: (G, b, b, n)."""
    V, direct, blocks, row = jax.vmap(_without)(fit.V, fit.direct, fit.blocks, column, q)
    return _Fit(V, direct, blocks, fit.objective + cost), row


def _without(V: Array, direct: tuple | None, blocks: Array, column: Array, q: Array) -> tuple:
    """One group without state q: V (p, b, n), blocks (b, b, n), column (b, b, n)."""
    inverse = _invert_blocks(column[:, :, q][None, :, :, None])[0, :, :, 0]
    row = jnp.einsum("kl,lin->kin", inverse, column)
    if len(column) > UNROLLED:
        blocks = blocks - jnp.einsum("kin,kjn->ijn", column, row)
    else:
        blocks = blocks - sum(column[k, :, None] * row[k, None] for k in range(len(column)))
    if direct is not None:
        Z, s, r = direct
        Zq = Z[:, :, q]
        weighted = Zq @ inverse
        s = s + (weighted * Zq).sum(axis=1)
        r = r + (weighted * V[:, :, q]).sum(axis=1)
        direct = (Z - jnp.einsum("pk,kjn->pjn", Zq, row), s, r)
    return V - jnp.einsum("pk,kjn->pjn", V[:, :, q], row), direct, blocks, row
