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

from dataclasses import dataclass

import jax
import numpy as np

from lastcli.engine import elimination_compiled, elimination_numpy
from lastcli.engine.features import block_size
from lastcli.engine.moments import Moments
from lastcli.engine.precision import in_float64
from lastcli.engine.readout import excluding
from lastcli.engine.regression import Regression, regression_of
from lastcli.engine.system import DiagonalSystem, feedthrough_of, sum_by_set

__all__ = ["Elimination", "curve", "eliminate", "eliminate_blocks"]


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
    alone = len(problem.M) == 1 and jax.default_backend() == "cpu"
    order, values = (elimination_numpy if alone else elimination_compiled).removed(problem, size, held)
    # Reading nothing is among the choices, so no error is larger than all there is.
    errors, objectives = np.clip(values, 0, sum_by_set(problem.energy, sets)[:, None])
    return curve(order, errors, objectives, scale)


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
