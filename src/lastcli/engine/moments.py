"""Second moments of one layer: all that a refit or an elimination needs to know about the inputs.

Everything is quadratic in the read-out, so the states of any number of examples collapse into a few small matrices.
They come from real inputs, streamed, or in closed form (`lastcli.engine.white_noise`).

On a CPU the products of a MIMO layer are NumPy's: the second moments of a matrix with itself take it a quarter of the
time that XLA takes in float64, and the states need not be put in the order of the features first, their moments are.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.features import feature_count, feature_rows, features_of, readout_of
from lastcli.engine.precision import in_float64
from lastcli.engine.scans import passed_states
from lastcli.engine.simulate import states
from lastcli.engine.system import DiagonalSystem, feedthrough_of
from lastcli.errors import InputError

__all__ = ["Moments", "accumulate", "empty_moments", "even_chunk", "group_signals"]

Array = Any

# Complex states held at once while streaming; larger batches are cut into chunks of whole sequences.
CHUNK_BYTES = 96 * 2**20


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["features", "input_features", "inputs", "cross", "target_inputs", "energy", "weight"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Moments:
    """Second moments of one layer's features f, inputs u and target outputs y (D u included), group axis first.

    The order of the features is that of `lastcli.engine.features`.

    Attributes:
        features: (G, F, F), E[f fᵀ].
        input_features: (G, m, F), E[u fᵀ].
        inputs: (G, m, m), E[u uᵀ].
        cross: (G, p, F), E[y fᵀ].
        target_inputs: (G, p, m), E[y uᵀ].
        energy: (G, p), E[y²].
        weight: total weight of the time steps seen so far, 0-dimensional; infinite where the moments are exact.
    """

    features: Array
    input_features: Array
    inputs: Array
    cross: Array
    target_inputs: Array
    energy: Array
    weight: Array

    def replace(self, **changes: Any) -> Moments:
        """A copy with the given fields changed."""
        return dataclasses.replace(self, **changes)


def empty_moments(system: DiagonalSystem) -> Moments:
    """Moments of a layer before any example was seen: zeros, of weight 0."""
    G, m, p, F = system.groups, system.inputs, system.outputs, feature_count(system)
    return Moments(
        features=np.zeros((G, F, F)),
        input_features=np.zeros((G, m, F)),
        inputs=np.zeros((G, m, m)),
        cross=np.zeros((G, p, F)),
        target_inputs=np.zeros((G, p, m)),
        energy=np.zeros((G, p)),
        weight=np.zeros(()),
    )


def _bare(system: DiagonalSystem, features: Array, input_features: Array, inputs: Array) -> Moments:
    """Moments without a target."""
    return empty_moments(system).replace(features=features, input_features=input_features, inputs=inputs)


def _own_target(system: DiagonalSystem, moments: Moments) -> Moments:
    """The same moments with the layer's own output as target: linear in f and u, so in closed form."""
    W = readout_of(system)
    D = feedthrough_of(system)
    cross = W @ moments.features + D @ moments.input_features
    target_inputs = W @ moments.input_features.swapaxes(1, 2) + D @ moments.inputs
    energy = (cross * W).sum(axis=2) + (target_inputs * D).sum(axis=2)
    return moments.replace(cross=cross, target_inputs=target_inputs, energy=energy)


@in_float64
def accumulate(
    moments: Moments, system: DiagonalSystem, u: Array, weights: Array | None = None, target: Array | None = None
) -> Moments:
    """Moments with one more batch of real inputs taken in, in float64; memory does not grow with the examples.

    Args:
        moments: what was seen so far (`empty_moments` at first).
        system: the layer, NumPy float64.
        u: (n, L, m), or (n, L, G) for multi-SISO: the layer's inputs.
        weights: (n, L) weight of every time step, 0 for padding; all 1 where None. The states still run through
            padded steps, as they do in the model; those steps only do not count.
        target: (n, L, p), or (n, L, p·G) head-major: the outputs to be matched; the layer's own where None.

    Raises:
        InputError: inputs or targets that are not finite.
    """
    u = np.asarray(u, dtype=np.float64)
    n, length = u.shape[:2]
    weights = np.ones((n, length)) if weights is None else np.asarray(weights, dtype=np.float64)
    y = None if target is None else np.asarray(target, dtype=np.float64)
    _require_finite(u, y, weights)
    system = jax.tree.map(np.asarray, system)
    per_example = length * system.directions * system.groups * system.poles.shape[1] * 16
    size = even_chunk(n, CHUNK_BYTES // max(per_example, 1))
    for start in range(0, n, size):
        rows = slice(start, start + size)
        examples = len(u[rows])
        short = size - examples  # the last chunk is filled with weightless rows: one compiled shape
        driven, counted = _fill(u[rows], short), _fill(weights[rows], short)
        wanted = None if y is None else _fill(y[rows], short)
        if not system.multi and jax.default_backend() == "cpu":
            moments = _mixed(moments, _moments_here(system, driven, counted, wanted, examples))
        else:
            moments = _take_in(moments, system, driven, counted, wanted)
    return jax.tree.map(np.asarray, moments)


def even_chunk(examples: int, most: int) -> int:
    """Examples of a chunk, up to `most`, so that all chunks are about as large: the last one is filled up."""
    chunks = -(-examples // max(most, 1))
    return -(-examples // max(chunks, 1)) or 1


def _fill(array: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(array, [(0, rows)] + [(0, 0)] * (array.ndim - 1)) if rows else array


def _require_finite(u: np.ndarray, y: np.ndarray | None, weights: np.ndarray) -> None:
    counted = weights > 0
    if not np.isfinite(u).all() or (y is not None and not np.isfinite(y[counted]).all()):
        raise InputError("The calibration data give a layer inputs or outputs that are not finite; check the data.")


@jax.jit
def _take_in(moments: Moments, system: DiagonalSystem, u: Array, weights: Array, y: Array | None) -> Moments:
    return _mixed(moments, _batch_moments(system, u, weights, y))


def _mixed(moments: Moments, new: Moments) -> Moments:
    """The weighted mean of what was seen before and now."""
    xp = np if isinstance(new.weight, np.ndarray) else jnp
    weight = moments.weight + new.weight
    share = xp.where(weight > 0, new.weight / xp.where(weight > 0, weight, 1), 0)
    mixed = jax.tree.map(lambda old, add: old + share * (add - old), moments, new)
    return mixed.replace(weight=weight)


def _batch_moments(system: DiagonalSystem, u: Array, weights: Array, y: Array | None) -> Moments:
    flat = weights.reshape(-1)
    weight = flat.sum()
    share = flat / jnp.where(weight > 0, weight, 1)
    f = features_of(states(system, u), system)
    v = group_signals(u, system.groups, system.multi)
    fw = f * share[None, :, None]
    fT, vT = jnp.swapaxes(fw, 1, 2), jnp.swapaxes(v * share[None, :, None], 1, 2)
    bare = _bare(system, fT @ f, vT @ f, vT @ v)
    if y is None:
        return _own_target(system, bare).replace(weight=weight)
    z = group_signals(jnp.where(weights[..., None] > 0, y, 0), system.groups, system.multi)
    zT = jnp.swapaxes(z * share[None, :, None], 1, 2)
    energy = jnp.einsum("gpt,gtp->gp", zT, z)
    return bare.replace(cross=zT @ f, target_inputs=zT @ v, energy=energy, weight=weight)


def _moments_here(
    system: DiagonalSystem, u: np.ndarray, weights: np.ndarray, y: np.ndarray | None, examples: int
) -> Moments:
    """`_batch_moments` of a MIMO layer by NumPy; after `examples` come rows that fill the batch, all zero."""
    counted = weights[:examples]
    weight = np.asarray(counted.sum())
    share = weights / weight if weight > 0 else np.zeros_like(weights)
    rows = [np.asarray(_rows(system, u)), _in_time(u)]
    if y is not None:
        rows.append(_in_time(np.where(weights[..., None] > 0, y, 0)))
    # weights that are all alike are one factor; rows of zeros add nothing
    alike = bool(weight > 0 and (counted == counted[0, 0]).all())
    if not alike:
        rows = [part * np.sqrt(share).T.reshape(-1, 1) for part in rows]
    factor = share[0, 0] if alike else 1.0
    x, v, *z = rows
    # of what is symmetric either side is rows
    features = feature_rows(feature_rows(factor * (x.T @ x)[None], system).swapaxes(1, 2), system)
    bare = _bare(system, features, _by_feature(factor * (v.T @ x), system), factor * (v.T @ v)[None])
    if y is None:
        return _own_target(system, bare).replace(weight=weight)
    return bare.replace(
        cross=_by_feature(factor * (z[0].T @ x), system),
        target_inputs=factor * (z[0].T @ v)[None],
        energy=factor * (z[0] ** 2).sum(axis=0)[None],
        weight=weight,
    )


@jax.jit
def _rows(system: DiagonalSystem, u: Array) -> Array:
    """(L·n, R·2·N·modes) states in the order of time: direction, (real, imaginary), mode."""
    passed = passed_states(system, u)
    return passed.reshape(passed.shape[0] * passed.shape[1], -1)


def _in_time(signal: np.ndarray) -> np.ndarray:
    """(n, L, c) as (L·n, c)."""
    return signal.swapaxes(0, 1).reshape(-1, signal.shape[2])


def _by_feature(products: np.ndarray, system: DiagonalSystem) -> np.ndarray:
    """(c, R·2·N·modes) as (1, c, F)."""
    return feature_rows(np.ascontiguousarray(products.T)[None], system).swapaxes(1, 2)


def group_signals(signal: Array, groups: int, multi: bool) -> Array:
    """A layer's inputs or outputs as (G, n·L, channels): head-major (c·G + g) where the layer is multi-SISO."""
    n, length, width = signal.shape
    if not multi:
        return signal.reshape(1, n * length, width)
    split = signal.reshape(n * length, width // groups, groups)
    return jnp.transpose(split, (2, 0, 1))
