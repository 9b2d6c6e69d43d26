"""One step of a selective layer as a recurrence: what it carries from step to step, and what it then answers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lastcli.engine.selective.mixer import along, inner_after, project_out, projected
from lastcli.engine.selective.pytrees import S6System, SSDSystem
from lastcli.engine.selective.scan import s6_states, ssd_states

__all__ = ["Cache", "start", "step"]

Array = Any


class Cache(NamedTuple):
    """What n sequences carry.

    Attributes:
        window: (n, K - 1, channels) the last inputs of the convolution.
        state: (n, d, N), or (n, heads, P, N) of SSD.
    """

    window: Array
    state: Array


def start(system: S6System | SSDSystem, n: int) -> Cache:
    """The cache of sequences that begin."""
    dtype = system.out_proj.dtype
    if isinstance(system, S6System):
        taps, channels, state = system.conv.shape[1], system.channels, system.A.shape
    else:
        taps, channels = system.conv_x.shape[1], system.channels + 2 * system.sets * system.states
        state = (system.heads, system.channels // system.heads, system.states)
    return Cache(jnp.zeros((n, taps - 1, channels), dtype), jnp.zeros((n, *state), dtype))


def step(system: S6System | SSDSystem, cache: Cache, u: Array) -> tuple[Array, Cache]:
    """The answer (n, H) to the next inputs (n, H), and the cache behind them; traceable."""
    signals = projected(system, u[:, None])
    window = jnp.concatenate([cache.window, signals.convolved], axis=1)
    inner = jax.tree.map(lambda array: array[:, -1:], inner_after(system, signals._replace(convolved=window)))
    if isinstance(system, S6System):
        state, states = s6_states(cache.state, system.A, inner.step, inner.x, inner.B)
        y = (states * inner.C[:, :, None, :]).sum(axis=-1) + along(system.D, 3) * inner.x
    else:
        state, states = ssd_states(cache.state, system.A, inner.step, inner.x, inner.B)
        C = jnp.repeat(inner.C, system.heads // system.sets, axis=2)
        y = (states * C[..., None, :]).sum(axis=-1) + along(system.D.reshape(system.heads, -1), 4) * inner.x
        y = y.reshape(len(u), 1, -1)
    return project_out(system, y, inner.gate)[:, 0], Cache(window[:, 1:], state)
