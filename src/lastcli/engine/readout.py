"""The least squares problem behind every refit: read-out and feedthrough from second moments, in closed form.

The functions work on NumPy arrays and on traced JAX arrays alike, with any leading (group) axes. The ridge is relative
to the mean variance of a group's features, ε·tr(M)/dim(M): a feature that the inputs hardly ever move has nothing to
say that would survive the next batch of data, and scaling it up would only amplify rounding. With N time steps seen by
each of G channels, ε is 1/(G·N) on top of a numerical floor: as if every feature had been seen once more, alone and
with the answer 0, by one of the channels. That is nothing for a hundred sequences, and keeps a read-out fitted to a
single one from going astray.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.moments import Moments
from lastcli.engine.system import DiagonalSystem
from lastcli.errors import UnsupportedModelError

__all__ = [
    "FLOOR",
    "RIDGE",
    "direct_part",
    "excluding",
    "feature_scale",
    "one_observation",
    "ridge_of",
    "row_errors",
    "solve_readout",
]

Array = Any

# The floor of the ridge: at 1e-10 the downdates of the elimination lose their digits where a layer's inputs have a low
# rank.
RIDGE = 1e-7
FLOOR = RIDGE
"""Where states are eliminated, what features leave of an input, relative to its power, never counts as less."""


def ridge_of(moments: Moments) -> Array:
    """ε relative to the mean variance of the features, 0-dimensional: 1/(G·N) for N time steps, and the floor."""
    return RIDGE + one_observation(moments.weight, math.prod(moments.features.shape[:-2]))


def one_observation(weight: Array, groups: int) -> Array:
    """1/(G·N), 0-dimensional: the share of one step among N = `weight` in each of G groups; 0 where N is 0."""
    xp = jnp if isinstance(weight, jax.Array) else np
    seen = weight * groups
    return xp.where(seen > 0, 1 / xp.where(seen > 0, seen, 1), 0)


def direct_part(system: DiagonalSystem) -> str:
    """What D may absorb: "none", "diagonal" or "dense"; with one input, diagonal and dense are the same.

    Raises:
        UnsupportedModelError: diagonal, but the layer has p outputs and m ≠ p inputs.
    """
    if system.feedthrough != "diagonal":
        return system.feedthrough
    if system.inputs == 1:
        return "dense"
    if system.inputs != system.outputs:
        raise UnsupportedModelError(
            f"A layer with {system.inputs} inputs and {system.outputs} outputs cannot have a diagonal feedthrough; "
            "its feedthrough is dense or none."
        )
    return "diagonal"


def excluding(moments: Moments, D: Array) -> Moments:
    """The same moments with y - D u as target."""
    energy = moments.energy - 2 * (D * moments.target_inputs).sum(axis=-1) + ((D @ moments.inputs) * D).sum(axis=-1)
    return moments.replace(
        cross=moments.cross - D @ moments.input_features,
        target_inputs=moments.target_inputs - D @ moments.inputs,
        energy=energy,
    )


def row_errors(moments: Moments, W: Array, D: Array) -> Array:
    """E[(y - W f - D u)²] of every output, (..., p)."""
    left = excluding(moments, D)
    return left.energy - 2 * (W * left.cross).sum(axis=-1) + ((W @ moments.features) * W).sum(axis=-1)


def feature_scale(features: Array) -> Array:
    """Root mean variance of a group's features, repeated for each, (..., F); 1 where all are always zero."""
    xp = _namespace(features)
    variance = xp.diagonal(features, axis1=-2, axis2=-1)
    mean = variance.mean(axis=-1, keepdims=True)
    alive = mean > 0
    return xp.broadcast_to(xp.where(alive, xp.sqrt(xp.where(alive, mean, 1)), 1), variance.shape)


def solve_readout(moments: Moments, direct: str) -> tuple[Array, Array]:
    """W (..., p, F) and D (..., p, m) that minimise E[(y - W f - D u)²] plus the ridge.

    Args:
        moments: of the features to be used and of the target.
        direct: what D may be: "none" (zero), "diagonal" (each output its own input) or "dense".
    """
    xp = _namespace(moments.features)
    scale = feature_scale(moments.features)
    ridge = ridge_of(moments)
    M = moments.features / (scale[..., :, None] * scale[..., None, :]) + ridge * _identities(moments.features)
    X, Y = moments.cross / scale[..., None, :], moments.input_features / scale[..., None, :]
    solved = _t(xp.linalg.solve(M, _t(xp.concatenate([X, Y], axis=-2))))
    p = X.shape[-2]
    V, Z = solved[..., :p, :], solved[..., p:, :]
    if direct == "none":
        return V / scale[..., None, :], xp.zeros_like(moments.target_inputs)
    # What of the inputs the features do not explain, and how the rest of the target depends on it.
    power = xp.diagonal(moments.inputs, axis1=-2, axis2=-1)
    floor = ridge * xp.where(power > 0, power, 1)
    if direct == "diagonal":
        own = xp.diagonal(moments.target_inputs, axis1=-2, axis2=-1)
        d = (own - (V * Y).sum(axis=-1)) / (xp.maximum(power - (Y * Z).sum(axis=-1), 0) + floor)
        return (V - d[..., None] * Z) / scale[..., None, :], d[..., None] * _identities(moments.target_inputs)
    left = moments.inputs - Y @ _t(Z) + floor[..., None] * _identities(moments.inputs)
    D = _t(xp.linalg.solve(left, _t(moments.target_inputs - V @ _t(Y))))
    return (V - D @ Z) / scale[..., None, :], D


def _identities(like: Array) -> Array:
    """An identity in the place of every matrix of `like` (..., n, n)."""
    xp = _namespace(like)
    return xp.broadcast_to(xp.eye(like.shape[-1]), like.shape)


def _t(array: Array) -> Array:
    return array.swapaxes(-1, -2)


def _namespace(array: Array) -> ModuleType:
    return np if isinstance(array, np.ndarray) else jnp
