"""A layer's read-out as a regression over its features: what elimination and exchange work on.

A dense D is taken out of the problem beforehand, so that what D can absorb is free. A diagonal D stays in it: every
output has an input of its own as an extra regressor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from lastcli.engine.moments import Moments
from lastcli.engine.readout import direct_part, excluding, feature_scale, ridge_of
from lastcli.engine.system import DiagonalSystem, feedthrough_of

__all__ = ["Regression", "regression_of"]

Array = Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["M", "X", "energy", "ridge", "Y", "own", "power", "floor", "absorbed", "absorbs"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Regression:
    """The least squares problem of a layer over features of unit mean variance.

    Attributes:
        M: (G, F, F), E[f fᵀ] with the ridge.
        X: (G, p, F), E[y fᵀ].
        energy: (G,), E[‖y‖²].
        ridge: 0-dimensional, ε in M: what the squares of the read-out cost beside the squared error.
        Y: (G, p, F), E[u_o fᵀ] of every output's own input; None unless D is diagonal.
        own: (G, p), E[y_o u_o]; None unless D is diagonal.
        power: (G, p), E[u_o²] with the ridge; None unless D is diagonal.
        floor: (G, m), what the squares of D's entries cost; None where D stays.
        absorbed: (G, p, m), the dense D that would be best without any feature; None unless D is dense.
        absorbs: (G, m, F), by how much a read-out lowers it: D = absorbed - W absorbsᵀ; None unless D is dense.
    """

    M: Array
    X: Array
    energy: Array
    ridge: Array
    Y: Array | None = None
    own: Array | None = None
    power: Array | None = None
    floor: Array | None = None
    absorbed: Array | None = None
    absorbs: Array | None = None


def regression_of(system: DiagonalSystem, moments: Moments) -> Regression:
    """The problem with y - D u as target, less what a dense D can absorb.

    Raises:
        UnsupportedModelError: a diagonal feedthrough of a layer with p ≠ m.
    """
    direct = direct_part(system)
    moments = excluding(jax.tree.map(np.asarray, moments), np.asarray(feedthrough_of(system)))
    scale, ridge = feature_scale(moments.features), ridge_of(moments)
    M = moments.features / (scale[:, :, None] * scale[:, None, :]) + ridge * np.eye(scale.shape[1])
    X, Y = moments.cross / scale[:, None, :], moments.input_features / scale[:, None, :]
    energy = moments.energy.sum(axis=1)
    if direct == "none":
        return Regression(M, X, energy, ridge)
    power = np.diagonal(moments.inputs, axis1=1, axis2=2)
    floor = ridge * np.where(power > 0, power, 1)
    power = power + floor
    if direct == "diagonal":
        own = np.diagonal(moments.target_inputs, axis1=1, axis2=2)
        return Regression(M, X, energy, ridge, Y, own, power, floor)
    inputs = moments.inputs.copy()
    diagonal = np.arange(inputs.shape[1])
    inputs[:, diagonal, diagonal] = power
    by_inputs = np.linalg.solve(inputs, np.concatenate([Y, moments.target_inputs.swapaxes(1, 2)], axis=2))
    M = M - Y.swapaxes(1, 2) @ by_inputs[..., : Y.shape[2]]
    taken = moments.target_inputs @ by_inputs
    explained = (taken[..., Y.shape[2] :] * np.eye(X.shape[1])).sum(axis=(1, 2))
    absorbed, absorbs = by_inputs[..., Y.shape[2] :].swapaxes(1, 2), by_inputs[..., : Y.shape[2]]
    X = X - taken[..., : Y.shape[2]]
    return Regression(M, X, energy - explained, ridge, floor=floor, absorbed=absorbed, absorbs=absorbs)
