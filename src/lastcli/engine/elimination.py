"""Optimal-brain-surgeon elimination of states: which state costs least to remove, with the refit in the objective.

With A = (M_KK + ε)⁻¹ over the kept features and w the current refitted read-out, removing the block q next raises the
squared error by exactly `w_q (A_qq)⁻¹ w_qᵀ`, summed over the outputs. The cheapest goes, A and w are downdated, and so
on until none is left: O(P³) for a layer. Modes are not orthogonal, so this is not what a ranking of single modes
gives (cf. optimal modal truncation, arXiv 2009.11540, the exact binary quadratic program).

What D can absorb is free. A dense D takes the inputs out of the problem beforehand. A diagonal D gives every output o
its own extra regressor u_o: with z_o = A m_o, m_o = E[f u_o], s_o what f leaves of u_o, the block of output o's
inverse is `A_qq + z_q z_qᵀ / s_o`, a rank-one change that needs no inverse of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.features import block_size, feature_indices
from lastcli.engine.moments import Moments
from lastcli.engine.precision import in_float64
from lastcli.engine.readout import RIDGE, excluding
from lastcli.engine.regression import Regression, regression_of
from lastcli.engine.system import DiagonalSystem, feedthrough_of, sum_by_set

__all__ = ["Elimination", "eliminate"]

Array = Any

# Up to this many states the arrays are not cut down on the way: another compilation costs more than it saves.
_SMALLEST_STAGE = 128
# What the features leave of an input, relative to its power, never counts as less than this.
_FLOOR = RIDGE


@dataclass(frozen=True)
class Elimination:
    """The whole curve of a layer: in which order its states go and what is lost by then.

    Attributes:
        order: (sets, N) int, states in the order they go, first the cheapest.
        error: (sets, N), squared error of the set when state n goes (n indexes states, not steps), cumulative.
        score: (sets, N), the same relative to the energy of the set's outputs; rises along `order`.
        layer_scores: (N,), relative error of the whole layer once every set has lost j + 1 states; rises.
        share: (sets, N), `layer_scores` at the step in which state n goes: one scale for all layers of a model, and
            equal counts in every set wherever it is cut. With one set it is `score`.
    """

    order: np.ndarray
    error: np.ndarray
    score: np.ndarray
    layer_scores: np.ndarray
    share: np.ndarray


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
    sets, size = system.sets, block_size(system)
    problem, energy = regression_of(system, moments)
    base = np.zeros(sets)
    held = np.zeros((sets, system.states), dtype=bool) if pinned is None else np.asarray(pinned, dtype=bool)
    steps: list[np.ndarray] = []
    rises: list[np.ndarray] = []
    left = np.tile(np.arange(system.states), (sets, 1))
    while n := left.shape[1]:
        # Once three quarters are gone the arrays are cut down and the inverse is computed afresh: less work, no drift.
        count = n if n <= _SMALLEST_STAGE else n - n // 4
        part = _restrict(problem, feature_indices(system, left), size)
        local, rise, explained = (
            np.asarray(value) for value in _stage(part, np.linalg.inv(part.M), held, sets=sets, count=count)
        )
        if not steps:
            base = sum_by_set(energy - explained, sets)
        steps.append(np.take_along_axis(left, local, axis=1))
        rises.append(rise)
        gone = np.zeros(left.shape, dtype=bool)
        np.put_along_axis(gone, local, True, axis=1)
        left, held = left[~gone].reshape(sets, n - count), held[~gone].reshape(sets, n - count)
    scale = sum_by_set(excluding(moments, feedthrough_of(system)).energy.sum(axis=1), sets)
    return _curve(np.concatenate(steps, axis=1), np.concatenate(rises, axis=1), base, scale)


def _curve(order: np.ndarray, rises: np.ndarray, base: np.ndarray, scale: np.ndarray) -> Elimination:
    errors = np.maximum(base, 0)[:, None] + np.cumsum(np.maximum(rises, 0), axis=1)
    total = scale.sum()
    layer_scores = errors.sum(axis=0) / (total if total > 0 else 1)
    by_state, share = np.empty_like(errors), np.empty_like(errors)
    np.put_along_axis(by_state, order, errors, axis=1)
    np.put_along_axis(share, order, np.broadcast_to(layer_scores, errors.shape), axis=1)
    score = by_state / np.where(scale > 0, scale, 1)[:, None]
    return Elimination(order=order, error=by_state, score=score, layer_scores=layer_scores, share=share)


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
    return Regression(
        np.take_along_axis(rows, order[:, None, :], axis=2),
        columns(problem.X),
        columns(problem.Y),
        problem.own,
        problem.power,
    )


@partial(jax.jit, static_argnames=("sets", "count"))
def _stage(problem: Regression, inverse: Array, held: Array, *, sets: int, count: int) -> tuple[Array, Array, Array]:
    """Remove `count` states: (sets, count) indices in order and cost of each, and (G,) what all states explained."""
    G, p, b, n = problem.X.shape
    A = jnp.transpose(inverse.reshape(G, b, n, b, n), (0, 1, 3, 2, 4))
    V = (problem.X.reshape(G, p, b * n) @ inverse).reshape(G, p, b, n)
    explained = (V * problem.X).sum(axis=(1, 2, 3))
    direct = None
    if problem.Y is not None and problem.own is not None and problem.power is not None:
        Z = (problem.Y.reshape(G, p, b * n) @ inverse).reshape(G, p, b, n)
        s = jnp.maximum(problem.power - (Z * problem.Y).sum(axis=(2, 3)), _FLOOR * problem.power)
        r = problem.own - (V * problem.Y).sum(axis=(2, 3))
        explained = explained + (r**2 / s).sum(axis=1)
        direct = (Z, s, r)
    member = jnp.arange(G) % sets

    def step(i: Array, carry: tuple) -> tuple:
        A, V, direct, alive, chosen, rise = carry
        cost = sum_by_set(_costs(A, V, direct), sets)
        cost = jnp.where(jnp.isfinite(cost), cost, 0)
        # Two keys in one comparison: a held state loses against every other, a removed one against all.
        first = jnp.where(alive & ~held, cost, jnp.inf)
        second = jnp.where(alive, cost, jnp.inf)
        q = jnp.argmin(jnp.where(jnp.isfinite(first).any(axis=1, keepdims=True), first, second), axis=1)
        A, V, direct = jax.vmap(_downdate)(A, V, direct, q[member])
        rows = jnp.arange(sets)
        return A, V, direct, alive.at[rows, q].set(False), chosen.at[:, i].set(q), rise.at[:, i].set(cost[rows, q])

    start = (A, V, direct, jnp.ones((sets, n), bool), jnp.zeros((sets, count), int), jnp.zeros((sets, count)))
    *_, chosen, rise = jax.lax.fori_loop(0, count, step, start)
    return chosen, rise, explained


def _costs(A: Array, V: Array, direct: tuple | None) -> Array:
    """What removing each state next costs, (G, n)."""
    inverse = _invert_blocks(jnp.diagonal(A, axis1=3, axis2=4))  # (G, b, b, n)
    if direct is None:
        return _quadratic(V, inverse, V).sum(axis=1)
    Z, s, r = direct
    W = V - (r / s)[:, :, None, None] * Z
    alone, shared = _quadratic(W, inverse, W), _quadratic(W, inverse, Z)
    return (alone - shared**2 / (s[:, :, None] + _quadratic(Z, inverse, Z))).sum(axis=1)


def _quadratic(left: Array, inverse: Array, right: Array) -> Array:
    """left_q A_qq⁻¹ right_qᵀ of every output and state, (G, p, n); unrolled over the small block so that it fuses."""
    size = left.shape[2]
    pairs = [(i, j) for i in range(size) for j in range(size)]
    return sum(left[:, :, i] * inverse[:, None, i, j] * right[:, :, j] for i, j in pairs)


def _invert_blocks(blocks: Array) -> Array:
    """Inverses of (G, b, b, n) symmetric positive definite blocks by Gauss-Jordan steps, unrolled over b."""
    size = blocks.shape[1]
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


def _downdate(A: Array, V: Array, direct: tuple | None, q: Array) -> tuple[Array, Array, tuple | None]:
    """One group without state q: A (b, b, n, n), V (p, b, n)."""
    size = A.shape[0]
    column = A[:, :, :, q]  # (b, b, n): [i, k] = A[i, k][:, q]
    inverse = _invert_blocks(column[:, :, q][None, :, :, None])[0, :, :, 0]
    row = jnp.einsum("kl,jln->kjn", inverse, column)  # G A_q:, by symmetry
    for k in range(size):
        A = A - column[:, None, k, :, None] * row[None, k, :, None, :]
    if direct is not None:
        Z, s, r = direct
        Zq = Z[:, :, q]
        weighted = Zq @ inverse
        s = s + (weighted * Zq).sum(axis=1)
        r = r + (weighted * V[:, :, q]).sum(axis=1)
        direct = (Z - jnp.einsum("pk,kjn->pjn", Zq, row), s, r)
    return A, V - jnp.einsum("pk,kjn->pjn", V[:, :, q], row), direct
