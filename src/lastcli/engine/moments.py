"""Second moments of one layer: all that a refit or an elimination needs to know about the inputs.

Everything is quadratic in the read-out, so the states of any number of examples collapse into a few small matrices.
They come either in closed form (white-noise input: the Gramian of the H2 norm) or from real inputs, streamed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.features import feature_count, features_of, merged, readout_of
from lastcli.engine.precision import in_float64
from lastcli.engine.simulate import states
from lastcli.engine.system import DiagonalSystem, feedthrough_of
from lastcli.errors import InputError

__all__ = ["Moments", "accumulate", "empty_moments", "white_noise_moments"]

Array = Any

# Complex states held at once while streaming; larger batches are cut into chunks of whole sequences.
CHUNK_BYTES = 96 * 2**20
# Steps after which a response stops to count where a state has no finite variance and is allowed all the same.
UNSTABLE_HORIZON = 1000.0


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


@in_float64
def white_noise_moments(
    system: DiagonalSystem, *, horizon: float | None = None, allow_unstable: bool = False
) -> Moments:
    """Moments under white-noise input of unit variance, in closed form; the target is the layer's own output.

    With these, the squared error of a read-out is the squared H2 norm of the error system. For z = [x; x*] the
    Gramian is E[z zᴴ]_ij = (b_i · b_j*) / (1 - λ_i λ_j*). The forward and the backward state of a bidirectional layer
    share only the present input (lag 0), and nothing where the output reads the state before the update.

    Args:
        system: the layer, NumPy float64.
        horizon: discount the impulse response by exp(-k/horizon), so that errors later than about that many steps
            count little: the H2 norm as a sequence of that length sees it. None: the H2 norm itself.
        allow_unstable: take states with |λ| ≥ 1 by a horizon of `UNSTABLE_HORIZON` steps where none is given.

    Raises:
        InputError: a state that the input drives has infinite variance: |λ| ≥ 1, or so large that the horizon does
            not tame it.
    """
    system = jax.tree.map(np.asarray, system)
    driven = np.abs(system.B).max(axis=2, initial=0.0) > 0
    if horizon is None and allow_unstable and (np.abs(system.poles)[driven] >= 1).any():
        horizon = UNSTABLE_HORIZON
    poles = np.where(driven, system.poles, 0) * (1.0 if horizon is None else np.exp(-1.0 / horizon))
    unstable = np.argwhere(np.abs(poles) >= 1)
    if len(unstable):
        g, n = unstable[0]
        raise InputError(
            f"State {n // system.modes} (group {g}) has |λ| = {abs(system.poles[g, n]):.6g}, at or beyond 1: its "
            "white-noise variance is infinite; calibrate on real inputs, or allow unstable states."
        )
    return jax.tree.map(np.asarray, _white_noise(system.replace(poles=poles)))


@jax.jit
def _white_noise(system: DiagonalSystem) -> Moments:
    poles, B = system.poles, system.B
    R, G, m = system.directions, system.groups, system.inputs
    hermitian = (B @ jnp.conj(jnp.swapaxes(B, 1, 2))) / (1 - poles[:, :, None] * jnp.conj(poles)[:, None, :])
    symmetric = (B @ jnp.swapaxes(B, 1, 2)) / (1 - poles[:, :, None] * poles[:, None, :])
    same = _real_gram(hermitian, symmetric)
    present = _real_gram(B @ jnp.conj(jnp.swapaxes(B, 1, 2)), B @ jnp.swapaxes(B, 1, 2))
    other = jnp.zeros_like(present) if system.delay else present
    # (G, i, j, part, part) → (G, i, direction, part, j, direction, part)
    eye = jnp.eye(R)[None, None, :, None, None, :, None]
    gram = jnp.where(eye == 1, _spread(same), _spread(other))
    F = poles.shape[1] * R * 2
    parts = jnp.stack([B.real, B.imag], axis=2)  # (G, i, part, m)
    lag0 = jnp.zeros_like(parts) if system.delay else parts
    lag0 = jnp.broadcast_to(lag0[:, :, None], (G, poles.shape[1], R, 2, m)).reshape(G, F, m)
    eye_m = jnp.broadcast_to(jnp.eye(m), (G, m, m))
    gram, lag0 = gram.reshape(G, F, F), jnp.swapaxes(lag0, 1, 2)
    q = merged(system)
    if q > 1:
        gram = gram.reshape(G, -1, q, 2 * R, F // (2 * R * q), q, 2 * R).sum(axis=(2, 5)).reshape(G, F // q, F // q)
        lag0 = lag0.reshape(G, m, -1, q, 2 * R).sum(axis=3).reshape(G, m, F // q)
    return _own_target(system, _bare(system, gram, lag0, eye_m))


def _spread(gram: Array) -> Array:
    return jnp.transpose(gram, (0, 1, 3, 2, 4))[:, :, None, :, :, None, :]


def _real_gram(hermitian: Array, symmetric: Array) -> Array:
    """Second moments (G, i, j, part, part) of real and imaginary parts from E[x xᴴ] and E[x xᵀ]."""
    rr, ii = (hermitian + symmetric).real / 2, (hermitian - symmetric).real / 2
    ri, ir = (symmetric - hermitian).imag / 2, (symmetric + hermitian).imag / 2
    return jnp.stack([jnp.stack([rr, ri], axis=-1), jnp.stack([ir, ii], axis=-1)], axis=-2)


def _bare(system: DiagonalSystem, features: Array, input_features: Array, inputs: Array) -> Moments:
    G, p = system.groups, system.outputs
    zero = jnp.zeros
    return Moments(
        features=features,
        input_features=input_features,
        inputs=inputs,
        cross=zero((G, p, features.shape[1])),
        target_inputs=zero((G, p, system.inputs)),
        energy=zero((G, p)),
        weight=jnp.array(jnp.inf),
    )


def _own_target(system: DiagonalSystem, moments: Moments) -> Moments:
    """The same moments with the layer's own output as target: linear in f and u, so in closed form."""
    W = readout_of(system)
    D = feedthrough_of(system)
    cross = W @ moments.features + D @ moments.input_features
    target_inputs = W @ jnp.swapaxes(moments.input_features, 1, 2) + D @ moments.inputs
    energy = jnp.sum(cross * W, axis=2) + jnp.sum(target_inputs * D, axis=2)
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
    size = int(min(n, max(1, CHUNK_BYTES // max(per_example, 1))))
    for start in range(0, n, size):
        rows = slice(start, start + size)
        short = size - len(u[rows])  # the last chunk is filled with weightless rows: one compiled shape
        part = [_fill(array[rows], short) for array in (u, weights)]
        moments = _take_in(moments, system, *part, None if y is None else _fill(y[rows], short))
    return jax.tree.map(np.asarray, moments)


def _fill(array: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(array, [(0, rows)] + [(0, 0)] * (array.ndim - 1)) if rows else array


def _require_finite(u: np.ndarray, y: np.ndarray | None, weights: np.ndarray) -> None:
    counted = weights > 0
    if not np.isfinite(u).all() or (y is not None and not np.isfinite(y[counted]).all()):
        raise InputError("The calibration data give a layer inputs or outputs that are not finite; check the data.")


@jax.jit
def _take_in(moments: Moments, system: DiagonalSystem, u: Array, weights: Array, y: Array | None) -> Moments:
    new = _batch_moments(system, u, weights, y)
    weight = moments.weight + new.weight
    share = jnp.where(weight > 0, new.weight / jnp.where(weight > 0, weight, 1), 0)
    mixed = jax.tree.map(lambda old, add: old + share * (add - old), moments, new)
    return mixed.replace(weight=weight)


def _batch_moments(system: DiagonalSystem, u: Array, weights: Array, y: Array | None) -> Moments:
    flat = weights.reshape(-1)
    weight = flat.sum()
    share = flat / jnp.where(weight > 0, weight, 1)
    f = features_of(states(system, u), merged(system))
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


def group_signals(signal: Array, groups: int, multi: bool) -> Array:
    """A layer's inputs or outputs as (G, n·L, channels): head-major (c·G + g) where the layer is multi-SISO."""
    n, length, width = signal.shape
    if not multi:
        return signal.reshape(1, n * length, width)
    split = signal.reshape(n * length, width // groups, groups)
    return jnp.transpose(split, (2, 0, 1))
