"""Optimal-brain-surgeon elimination of states: which state costs least to remove, with the refit in the objective.

With A = (M_KK + ε)⁻¹ over the kept features and w the current refitted read-out, removing the block q next raises the
objective, squared error and ridge, by exactly `w_q (A_qq)⁻¹ w_qᵀ`, summed over the outputs. The cheapest goes, A and w
are downdated, and so on until none is left: O(P³) for a layer. Where poles nearly meet, A is huge until all but one of
them have gone, and its rounding is not small beside what remains; so it is watched, and computed afresh. What is
reported is the squared error of the refitted read-out, without the ridge that the refit minimises beside it. Modes are
not orthogonal, so this is not what a ranking of single modes gives (cf. optimal modal truncation, arXiv 2009.11540, the
exact binary quadratic program).

What D can absorb is free. A dense D takes the inputs out of the problem beforehand. A diagonal D gives every output o
its own extra regressor u_o: with z_o = A m_o, m_o = E[f u_o], s_o what f leaves of u_o, the block of output o's
inverse is `A_qq + z_q z_qᵀ / s_o`, a rank-one change that needs no inverse of its own.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.ahead import Ahead
from lastcli.engine.downdating import DRIFT, MOST_REFRESHES, UNROLLED, Inverse, Probe
from lastcli.engine.elimination_mimo import eliminate_group
from lastcli.engine.embedding import kept_indices
from lastcli.engine.features import block_size
from lastcli.engine.moments import Moments
from lastcli.engine.precision import in_float64
from lastcli.engine.readout import FLOOR, excluding
from lastcli.engine.regression import Regression, regression_of
from lastcli.engine.system import DiagonalSystem, feedthrough_of, sum_by_set

__all__ = ["Elimination", "curve", "eliminate", "eliminate_blocks"]

Array = Any

# Up to this many states the arrays are not cut down on the way: another compilation costs more than it saves.
_SMALLEST_STAGE = 128


@dataclass(frozen=True)
class Elimination:
    """The whole curve of a layer: in which order its states go and what is lost by then.

    Attributes:
        order: (sets, N) int, states in the order they go, first the cheapest.
        error: (sets, N), squared error of the set once state n has gone (n indexes states, not steps).
        score: (sets, N), the same relative to the energy of the set's outputs; rises along `order`.
        layer_scores: (N,), relative error of the whole layer once every set has lost j + 1 states; rises.
        share: (sets, N), `layer_scores` at the step in which state n goes: one scale for all layers of a model, and
            equal counts in every set wherever it is cut. With one set it is `score`.
        rank: (sets, N), as `share`, of error and ridge together: what elimination keeps small, and what says which
            layer gives up a state next. A read-out that is large for lack of data counts as bad.
    """

    order: np.ndarray
    error: np.ndarray
    score: np.ndarray
    layer_scores: np.ndarray
    share: np.ndarray
    rank: np.ndarray


@in_float64
def eliminate(system: DiagonalSystem, moments: Moments, *, pinned: np.ndarray | None = None) -> Elimination:
    """Backward elimination of a layer's states, the read-out of those left re-solved at every step.

    Each set of a multi-SISO layer loses its own states; groups that share a set lose the same one, the one whose cost
    summed over them is smallest.

    Args:
        system: the layer, NumPy float64.
        moments: `white_noise_moments(system)`, or of real inputs.
        pinned: (sets, N) bool, states that go last whatever they are worth.

    Raises:
        UnsupportedModelError: a diagonal feedthrough of a layer with p ≠ m.
    """
    scale = sum_by_set(excluding(moments, feedthrough_of(system)).energy.sum(axis=1), system.sets)
    return eliminate_blocks(regression_of(system, moments), block_size(system), system.sets, scale, pinned)


@in_float64
def eliminate_blocks(
    problem: Regression, size: int, sets: int, scale: np.ndarray, pinned: np.ndarray | None = None
) -> Elimination:
    """Backward elimination of blocks of features.

    Args:
        problem: over N blocks of `size` features each, one block after the other.
        size: features of a state.
        sets: index sets; group g belongs to set g % sets.
        scale: (sets,), the energy that errors are relative to.
        pinned: (sets, N) bool, states that go last whatever they are worth.
    """
    states = problem.M.shape[1] // size
    held = np.zeros((sets, states), dtype=bool) if pinned is None else np.asarray(pinned, dtype=bool)
    # Reading nothing is among the choices, so no error is larger than all there is.
    most = sum_by_set(problem.energy, sets)[:, None]
    if len(problem.M) == 1 and jax.default_backend() == "cpu":
        order, *found = eliminate_group(problem, size, held[0])
        errors, objectives = np.clip(np.array(found)[:, None], 0, most)
        return curve(order[None], errors, objectives, scale)
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
    errors, objectives = np.clip(np.concatenate(values, axis=2), 0, most)
    return curve(np.concatenate(steps, axis=1), errors, objectives, scale)


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


def curve(order: np.ndarray, errors: np.ndarray, objectives: np.ndarray, scale: np.ndarray) -> Elimination:
    """The curve from `order` (sets, N), errors and objectives once each has gone, and the energy of each set."""
    total = scale.sum() if scale.sum() > 0 else 1

    def by_state(values: np.ndarray) -> np.ndarray:
        found = np.empty(order.shape)
        np.put_along_axis(found, order, np.broadcast_to(values, order.shape), axis=1)
        return found

    # The objective rises with every state that goes, the error that is part of it all but always does.
    errors, objectives = (np.maximum.accumulate(values, axis=1) for values in (errors, objectives))
    layer_scores = errors.sum(axis=0) / total
    error = by_state(errors)
    return Elimination(
        order=order,
        error=error,
        score=error / np.where(scale > 0, scale, 1)[:, None],
        layer_scores=layer_scores,
        share=by_state(layer_scores),
        rank=by_state(objectives.sum(axis=0) / total),
    )


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
