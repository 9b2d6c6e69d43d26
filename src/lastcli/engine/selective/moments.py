"""Second moments of a selective layer on calibration inputs, streamed in float64.

A state of S6 is read by C[t], one vector for all channels, and C = W_C x. Any map T over the maps m of x that the file
holds anyway, m = [W_C x; W_B x; W_δ x] (all of x, where that is small), can be folded into the rows that make C: the
read-out of state n may be Σ_p T_np m_p. With V_n = W_o (g ∘ h_n) in the width of the model, g the gate, the layer's
answer is linear in T and in D::

    out[t] = Σ_n Σ_p T_np m_p[t] V_n[t] + Σ_d D_d g_d[t] x_d[t] W_o,d

so the features of state n are m_p V_n, a block for each state, and their Gram matrix is Σ_t (VᵀV) ⊗ (m mᵀ). The
gate and the last projection weigh the channels; one index set and one read-out serve them all.

The memory is that of the Gram matrices and of one chunk of time of a few sequences, whatever the length and the number
of the inputs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.moments import even_chunk
from lastcli.engine.precision import in_float64
from lastcli.engine.selective.mixer import along, inner_of, mix
from lastcli.engine.selective.pytrees import S6System, SSDSystem
from lastcli.engine.selective.scan import chunked, s6_states, ssd_states
from lastcli.engine.selective.system import SelectiveSystem
from lastcli.errors import InputError

__all__ = ["SelectiveMoments", "accumulate", "empty_moments", "maps_of", "wide"]

Array = Any

# Arrays of one chunk of time: so many bytes at most, as long as one sequence fits.
CHUNK_BYTES = 48 * 2**20
# Steps of a chunk: short ones, since the states of every step are looked at.
STEPS = 16
# Up to so many features all of x is offered to the read-out.
MOST_FEATURES = 1024


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["contribution", "step", "power", "weight", "gram", "cross", "direct", "direct_cross", "direct_target",
                 "energy"],
    meta_fields=[],
)  # fmt: skip
@dataclass(frozen=True)
class SelectiveMoments:
    """Means over the time steps seen; the last six are None of SSD, whose read-out is no linear one.

    Attributes:
        contribution: (sets, N), Σ C_n² h_n² with the gate and the last projection as weights.
        step: (d,) or (heads,), the mean step.
        power: (2, sets, N), E[B²] and E[C²].
        weight: total weight of the time steps, 0-dimensional.
        gram: (N·P, N·P) of the features m_p V_n, state after state.
        cross: (N·P,), of the target and the features.
        direct: (d, d), direct_cross (d, N·P), direct_target (d,): the same of the regressors of D.
        energy: mean square of the target (without the output bias), 0-dimensional.
    """

    contribution: Array
    step: Array
    power: Array
    weight: Array
    gram: Array = None
    cross: Array = None
    direct: Array = None
    direct_cross: Array = None
    direct_target: Array = None
    energy: Array = None


def maps_of(system: S6System) -> Array:
    """(P, d): what of x a read-out may use; the first N rows are those of C."""
    xp = jnp if isinstance(system.to_C, jax.Array) else np
    if system.normed:
        return xp.zeros((0, system.channels))
    rows = [system.to_C, system.to_B, system.to_step]
    if system.states * system.channels <= MOST_FEATURES and system.channels > sum(len(row) for row in rows):
        return xp.eye(system.channels)
    return xp.concatenate(rows)


def empty_moments(system: SelectiveSystem) -> SelectiveMoments:
    """Moments before any example was seen."""
    if not isinstance(system, (S6System, SSDSystem)):
        raise TypeError(f"There are no moments of a {type(system).__name__}.")
    sets, N = system.sets, system.states
    zero = np.zeros
    steps = len(system.step_bias)
    common = SelectiveMoments(zero((sets, N)), zero(steps), zero((2, sets, N)), zero(()))
    if not isinstance(system, S6System) or system.normed:
        return common
    F, d = N * len(maps_of(system)), system.channels
    return dataclasses.replace(
        common, gram=zero((F, F)), cross=zero(F), direct=zero((d, d)), direct_cross=zero((d, F)), direct_target=zero(d),
        energy=zero(()),
    )  # fmt: skip


def wide(system: SelectiveSystem) -> Any:
    """The system in float64."""
    return jax.tree.map(lambda array: np.asarray(array, np.float64), system)


@in_float64
def accumulate(
    moments: SelectiveMoments, system: SelectiveSystem, u: Array, weights: Array | None = None, target: Any = None
) -> SelectiveMoments:
    """Moments with one more batch taken in.

    Args:
        moments: what was seen so far.
        system: the layer.
        u: (n, L, H), the layer's inputs.
        weights: (n, L) weight of every time step, 0 for padding; all 1 where None.
        target: (n, L, H), what is to be answered; the layer's own answer where None.

    Raises:
        InputError: inputs or targets that are not finite.
    """
    u = np.asarray(u, np.float64)
    n, length = u.shape[:2]
    weights = np.ones((n, length)) if weights is None else np.asarray(weights, np.float64)
    if not np.isfinite(u).all() or (target is not None and not np.isfinite(target[weights > 0]).all()):
        raise InputError("The calibration data give a layer inputs or outputs that are not finite; check the data.")
    layer = wide(system)
    each = 8 * min(length, STEPS) * system.channels * (2 * system.states + 4) + 8 * length * 8 * system.channels
    size = even_chunk(n, int(CHUNK_BYTES // each))
    for start in range(0, n, size):
        rows = slice(start, start + size)
        short = size - len(u[rows])
        part = [_fill(array[rows], short) for array in (u, weights)]
        wanted = None if target is None else _fill(np.asarray(target[rows], np.float64), short)
        moments = _take_in(moments, layer, *part, wanted)
    return jax.tree.map(np.asarray, moments)


def _fill(array: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(array, [(0, rows)] + [(0, 0)] * (array.ndim - 1)) if rows else array


@jax.jit
def _take_in(moments: SelectiveMoments, system: Any, u: Array, weights: Array, target: Array | None) -> Any:
    new = _s6(system, u, weights, target) if isinstance(system, S6System) else _ssd(system, u, weights)
    weight = moments.weight + new.weight
    share = 1 / jnp.where(weight > 0, weight, 1)
    mixed = jax.tree.map(lambda old, add: (old * moments.weight + add) * share, moments, new)
    return dataclasses.replace(mixed, weight=weight)


def _s6(system: S6System, u: Array, weights: Array, target: Array | None) -> SelectiveMoments:
    inner = inner_of(system, u)
    maps = maps_of(system)
    full = not system.normed
    wanted = mix(system, u) if target is None else target
    if system.out_bias is not None:
        wanted = wanted - along(system.out_bias, 3)
    out = system.out_proj
    loud = (out * out).sum(axis=0)
    N, P, d = system.states, len(maps), system.channels

    def body(carry: tuple, part: tuple) -> tuple[tuple, None]:
        h, sums = carry
        x, gate, step, B, C, y, w = part
        h, states = s6_states(h, system.A, step, x, B)
        gated = states * gate[..., None]
        power = jnp.einsum("ntdk,d,nt->ntk", gated * gated, loud, w)
        found = {"contribution": (power * C * C).sum(axis=(0, 1))[None]}
        if full:
            V = jnp.einsum("hd,ntdk->nthk", out, gated)
            m = x @ maps.T
            VV = jnp.einsum("nthk,nthl->ntkl", V, V).reshape(-1, N * N)
            mm = (w[..., None, None] * m[..., :, None] * m[..., None, :]).reshape(-1, P * P)
            gx = gate * x
            reads = jnp.einsum("hd,nthk->ntdk", out, V) * (gx * w[..., None])[..., None]
            found |= {
                "gram": VV.T @ mm,
                "cross": jnp.einsum("nth,nthk,ntp->kp", y * w[..., None], V, m).reshape(-1),
                "direct": jnp.einsum("ntd,nte,nt->de", gx, gx, w) * (out.T @ out),
                "direct_cross": jnp.einsum("ntdk,ntp->dkp", reads, m).reshape(d, -1),
                "direct_target": jnp.einsum("nth,hd,ntd,nt->d", y, out, gx, w),
                "energy": (y * y * w[..., None]).sum(),
            }
        return (h, jax.tree.map(jnp.add, sums, found)), None

    start: dict[str, Array] = {"contribution": jnp.zeros((1, N))}
    if full:
        F = N * P
        start |= {
            "gram": jnp.zeros((N * N, P * P)),
            "cross": jnp.zeros(F),
            "direct": jnp.zeros((d, d)),
            "direct_cross": jnp.zeros((d, F)),
            "direct_target": jnp.zeros(d),
            "energy": jnp.zeros(()),
        }
    h = jnp.zeros((len(u), d, N))
    parts = (inner.x, inner.gate, inner.step, inner.B, inner.C, wanted, weights)
    (_, sums), _ = chunked(body, (h, start), parts, STEPS)
    if full:
        sums["gram"] = sums["gram"].reshape(N, N, P, P).transpose(0, 2, 1, 3).reshape(N * P, N * P)
    step, power = _signal_means(inner.step, inner.B[:, :, None], inner.C[:, :, None], weights)
    return SelectiveMoments(step=step, power=power, weight=weights.sum(), **sums)


def _ssd(system: SSDSystem, u: Array, weights: Array) -> SelectiveMoments:
    inner = inner_of(system, u)
    heads, sets = system.heads, system.sets
    scale = 1 if system.norm is None else system.norm
    loud = ((system.out_proj * along(scale, 2)) ** 2).sum(axis=0).reshape(heads, -1)

    def body(carry: tuple, part: tuple) -> tuple[tuple, None]:
        h, total = carry
        x, gate, step, B, C, w = part
        h, states = ssd_states(h, system.A, step, x, B)
        gated = states * gate.reshape(x.shape)[..., None]
        power = jnp.einsum("nthpk,hp,nt->nthk", gated * gated, loud, w)
        by_group = power.reshape(*power.shape[:2], sets, -1, power.shape[3]).sum(axis=3)
        return (h, total + (by_group * C * C).sum(axis=(0, 1))), None

    P = inner.x.shape[3]
    start = (jnp.zeros((len(u), heads, P, system.states)), jnp.zeros((sets, system.states)))
    (_, total), _ = chunked(body, start, (inner.x, inner.gate, inner.step, inner.B, inner.C, weights), STEPS)
    step, power = _signal_means(inner.step, inner.B, inner.C, weights)
    return SelectiveMoments(total, step, power, weights.sum())


def _signal_means(step: Array, B: Array, C: Array, weights: Array) -> tuple[Array, Array]:
    w = weights[..., None]
    squares = [(array * array * w[..., None]).sum(axis=(0, 1)) for array in (B, C)]
    return (step * w).sum(axis=(0, 1)), jnp.stack(squares)
