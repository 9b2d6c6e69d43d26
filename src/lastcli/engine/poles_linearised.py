"""Gauss-Newton for the poles of layers with one input, from second moments alone.

With γ = ∂x/∂λ the output moves by s·Re(C γ dλ), so the Jacobian lies in the span of the real features of γ, and its
normal matrix follows from the second moments of γ once the part that C and D can follow is projected out (Kaufman's
form of variable projection, BIT 15, 1975).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lastcli.engine.features import feature_count, features_of, readout_to_C
from lastcli.engine.moments import Moments
from lastcli.engine.pole_variables import Anchor, moved_system
from lastcli.engine.readout import RIDGE, row_errors, solve_readout
from lastcli.engine.signals import Signals, feature_moments, relative_errors, signal_moments
from lastcli.engine.simulate import states
from lastcli.engine.system import DiagonalSystem, sum_by_set

__all__ = ["linearise"]

Array = Any


@partial(jax.jit, static_argnames="direct")
def linearise(
    z: Array, *, anchor: Anchor, base: DiagonalSystem, D: Array, fit: Signals, held: Signals, direct: str
) -> tuple[Array, Array, Array, Array]:
    """Relative errors (S,), gradients (S, 2K), Gauss-Newton curvatures (S, 2K, 2K), and errors on the held-back part.

    Args:
        z: (S, 2K), the variables of `Anchor` (ρ, then φ).
        anchor: the start and the scales.
        base: a layer with one input a group.
        D: (G, p, 1), the original feedthrough.
        fit: signals to fit.
        held: signals held back.
        direct: "none" or "dense".
    """
    moved = moved_system(z, anchor, base)
    run = lambda poles: states(moved.replace(poles=poles), fit.u)  # noqa: E731
    x, slope = jax.jvp(run, (moved.poles,), (jnp.ones_like(moved.poles),))
    # A pole turns the state's slope, so both of its parts reach even a real read-out.
    slopes = features_of(slope, moved.replace(real_readout=False))
    both = jnp.concatenate([features_of(x, moved), slopes], axis=2)
    moments = feature_moments(both, base, D, fit)
    F = feature_count(moved)
    part = moments.replace(
        features=moments.features[:, :F, :F],
        input_features=moments.input_features[..., :F],
        cross=moments.cross[..., :F],
    )
    W, change = solve_readout(part, direct)
    values = relative_errors(row_errors(part, W, change), part.energy, base.sets)
    unseen = signal_moments(moved, D, held)
    energy = sum_by_set(part.energy.sum(axis=1), base.sets)
    energy = jnp.where(energy > 0, energy, 1)
    downhill, normal = _normal_equations(moments, W, change, moved, anchor, direct)
    return (
        values,
        -2 * sum_by_set(downhill, base.sets) / energy[:, None],
        2 * sum_by_set(normal, base.sets) / energy[:, None, None],
        relative_errors(row_errors(unseen, W, change), unseen.energy, base.sets),
    )


def _normal_equations(
    moments: Moments, W: Array, change: Array, moved: DiagonalSystem, anchor: Anchor, direct: str
) -> tuple[Array, Array]:
    """Jᵀe (G, 2K) and JᵀPJ (G, 2K, 2K), P projecting out what the read-out can follow."""
    F = feature_count(moved)
    G, K = moved.poles.shape
    R = moved.directions
    known, slopes = moments.features[:, :F], moments.features[:, F:, F:]
    regressors, shared = known[..., :F], known[..., F:]
    left = moments.cross[..., F:] - W @ shared - change @ moments.input_features[..., F:]
    if direct != "none":
        mixed = moments.input_features
        top = jnp.concatenate([regressors, jnp.swapaxes(mixed[..., :F], 1, 2)], axis=2)
        bottom = jnp.concatenate([mixed[..., :F], moments.inputs], axis=2)
        regressors = jnp.concatenate([top, bottom], axis=1)
        shared = jnp.concatenate([shared, mixed[..., F:]], axis=1)
    size = jnp.sqrt(jnp.diagonal(regressors, axis1=1, axis2=2))
    size = jnp.where(size > 0, size, 1)
    scaled = regressors / (size[:, :, None] * size[:, None, :]) + RIDGE * jnp.eye(size.shape[1])[None]
    shared = shared / size[..., None]
    free = slopes - jnp.swapaxes(shared, 1, 2) @ jnp.linalg.solve(scaled, shared)
    # How the poles move with each variable, and what that does to the output in terms of γ.
    poles, tiles = moved.poles, (G // anchor.rho.shape[0], 1)
    by_rho, by_phi = (jnp.tile(by, tiles).astype(poles.dtype) for by in (anchor.by_rho, anchor.by_phi))
    by = jnp.stack([poles * jnp.log(jnp.abs(poles)).astype(poles.dtype) * by_rho, 1j * poles * by_phi])
    effect = moved.pairing * readout_to_C(W, moved)[None] * by[:, :, None, None, :]  # (2, G, R, p, K)
    J = jnp.transpose(jnp.stack([effect.real, -effect.imag], axis=-1), (1, 3, 0, 4, 2, 5))  # (G, p, 2, K, R, 2)
    downhill = jnp.einsum("gotiac,goiac->gti", J, left.reshape(G, -1, K, R, 2))
    inner = jnp.einsum("gotiac,giacjbd->gotijbd", J, free.reshape(G, K, R, 2, K, R, 2))
    normal = jnp.einsum("gotijbd,gosjbd->gtisj", inner, J)
    return downhill.reshape(G, 2 * K), normal.reshape(G, 2 * K, 2 * K)
