"""A mixer's answer to its input, and the signals inside it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lastcli.engine.precision import in_float64
from lastcli.engine.selective.pytrees import S6HeadsSystem, S6System, SSDSystem
from lastcli.engine.selective.scan import s6_scan, ssd_scan
from lastcli.engine.selective.system import SelectiveSystem

__all__ = [
    "Inner",
    "Projected",
    "along",
    "answer",
    "inner_after",
    "inner_of",
    "mix",
    "normalised",
    "project_out",
    "projected",
]

Array = Any


class Inner(NamedTuple):
    """What a mixer computes before its recurrence.

    Attributes:
        x: (n, L, d), or (n, L, heads, P) of SSD, behind the convolution.
        gate: (n, L, d), silu(z).
        step: (n, L, d), or (n, L, heads).
        B, C: (n, L, N), or (n, L, G, N).
        raw: (n, L, r + 2N) of S6, what becomes step, B and C; None of SSD.
    """

    x: Array
    gate: Array
    step: Array
    B: Array
    C: Array
    raw: Array | None = None


def mix(system: SelectiveSystem, u: Array) -> Array:
    """The mixer's answer (n, L, H) to (n, L, H), all states starting at zero; traceable."""
    if isinstance(system, S6HeadsSystem):
        return sum((mix(head, u) for head in system.heads[1:]), mix(system.heads[0], u))
    if not isinstance(system, (S6System, SSDSystem)):
        raise TypeError(type(system))
    inner = inner_of(system, u)
    if isinstance(system, S6System):
        y = s6_scan(system.A, inner.step, inner.x, inner.B, inner.C) + along(system.D, 3) * inner.x
    else:
        y = ssd_scan(system.A, inner.step, inner.x, inner.B, inner.C) + along(_by_channel(system), 4) * inner.x
        y = y.reshape(*y.shape[:2], -1)
    return project_out(system, y, inner.gate)


def project_out(system: SelectiveSystem, y: Array, gate: Array) -> Array:
    """(n, L, H) from the recurrence's (n, L, d): gate, norm and projection."""
    return _linear(normalised(system, y, gate), system.out_proj, system.out_bias)


def normalised(system: SelectiveSystem, y: Array, gate: Array) -> Array:
    """What the last projection reads, (n, L, d)."""
    if not isinstance(system, SSDSystem) or system.norm is None:
        return y * gate
    if not system.norm_first:
        y = y * gate
    parts = y.reshape(*y.shape[:-1], system.norm_groups, -1)
    y = _rms(parts, system.norm_eps).reshape(y.shape) * along(system.norm, 3)
    return y * gate if system.norm_first else y


def inner_of(system: SelectiveSystem, u: Array) -> Inner:
    """The signals before the recurrence."""
    u = jnp.asarray(u, system.out_proj.dtype)
    if not isinstance(system, (S6System, SSDSystem)):
        raise TypeError(type(system))
    return inner_after(system, projected(system, u))


@in_float64
def answer(system: SelectiveSystem, u: np.ndarray) -> np.ndarray:
    """`mix` in float64, compiled, from NumPy to NumPy."""
    return np.asarray(_mix(jax.tree.map(lambda a: np.asarray(a, np.float64), system), np.asarray(u, np.float64)))


_mix = jax.jit(mix)


class Projected(NamedTuple):
    """A mixer's signals behind its first projection.

    Attributes:
        convolved: (n, L, channels), what passes the convolution: x, or of SSD x, B and C.
        z: (n, L, d), what becomes the gate.
        step: (n, L, heads) of SSD, before its bias; S6 computes it behind the convolution.
    """

    convolved: Array
    z: Array
    step: Array | None = None


def projected(system: S6System | SSDSystem, u: Array) -> Projected:
    """The first projection of (n, L, H)."""
    if isinstance(system, S6System):
        x, z = jnp.split(_linear(u, system.in_proj, system.in_bias), 2, axis=-1)
        return Projected(x, z)
    blocks = ((system.to_x, system.x_bias), (system.to_B, system.B_bias), (system.to_C, system.C_bias))
    convolved = jnp.concatenate([_linear(u, _rows(matrix, 1), _rows(bias, 0)) for matrix, bias in blocks], axis=-1)
    z, step = _linear(u, system.to_z, system.z_bias), _linear(u, system.to_step, system.dt_bias)
    return Projected(convolved, z, step)


def inner_after(system: S6System | SSDSystem, signals: Projected) -> Inner:
    """What follows the first projection; where `convolved` is longer than the rest, its last steps are those of it."""
    return _s6(system, signals) if isinstance(system, S6System) else _ssd(system, signals)


def _s6(system: S6System, signals: Projected) -> Inner:
    x = jax.nn.silu(_convolve(signals.convolved, system.conv, system.conv_bias))
    step, B, C = x @ system.to_step.T, x @ system.to_B.T, x @ system.to_C.T
    raw = jnp.concatenate([step, B, C], axis=-1)
    if system.normed:
        step, B, C = (
            _rms(part, system.norm_eps) * along(weight, 3)
            for part, weight in ((step, system.step_norm), (B, system.B_norm), (C, system.C_norm))
        )
    step = jax.nn.softplus(_linear(step, system.step_proj, system.step_bias))
    return Inner(x, jax.nn.silu(signals.z), step, B, C, raw)


def _ssd(system: SSDSystem, signals: Projected) -> Inner:
    n, length = signals.convolved.shape[:2]
    d, width = system.channels, system.sets * system.states
    taps: list[Any] = [system.conv_x, _rows(system.conv_B, 1), _rows(system.conv_C, 1)]
    biases: list[Any] = [system.conv_x_bias, _rows(system.conv_B_bias, 0), _rows(system.conv_C_bias, 0)]
    bias = None if system.conv_x_bias is None else jnp.concatenate(biases)
    x, B, C = jnp.split(jax.nn.silu(_convolve(signals.convolved, jnp.concatenate(taps), bias)), [d, d + width], axis=-1)
    step = jax.nn.softplus(signals.step + along(system.step_bias, 3))
    low, high = system.step_limits
    step = jnp.clip(step, low, None if np.isinf(high) else high)
    B, C = (part.reshape(n, length, system.sets, system.states) for part in (B, C))
    return Inner(x.reshape(n, length, system.heads, -1), jax.nn.silu(signals.z), step, B, C)


def _rows(array: Array | None, behind: int) -> Array | None:
    """(G, N, ...) as rows (G·N, ...); `behind` axes follow."""
    return None if array is None else array.reshape(-1, *array.shape[array.ndim - behind :])


def _by_channel(system: SSDSystem) -> Array:
    """D as (heads, 1) or (heads, P)."""
    return system.D.reshape(system.heads, -1)


def along(array: Array, ndim: int) -> Array:
    """With axes of one before it, to go with an array of `ndim` axes."""
    return lax.broadcast_to_rank(jnp.asarray(array), ndim)


def _linear(x: Array, matrix: Array, bias: Array | None) -> Array:
    y = x @ matrix.T
    return y if bias is None else y + along(bias, y.ndim)


def _convolve(x: Array, taps: Array, bias: Array | None) -> Array:
    """Causal convolution of each channel (n, L, c) with its taps (c, K), the last of which is the present's."""
    K = taps.shape[1]
    padded = jnp.pad(x, ((0, 0), (K - 1, 0), (0, 0)))
    y = sum(padded[:, k : k + x.shape[1]] * along(taps[:, k], 3) for k in range(K))
    return y if bias is None else y + along(bias, 3)


def _rms(x: Array, eps: float) -> Array:
    return x * jax.lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + eps)
