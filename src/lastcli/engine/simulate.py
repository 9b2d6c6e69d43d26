"""Response of a `DiagonalSystem` to an input: states, output and impulse response.

A MIMO layer is a linear recurrence over its states, see `scans`. A multi-SISO layer is convolved with its kernel by
FFT; the kernel is a product of two small Vandermonde matrices.

Nothing takes the logarithm or a negative power of a pole, so poles at zero (masked states) give finite values and
finite gradients. Everything is traceable by `jax.jit` and `jax.vmap` and runs in the precision of the system's arrays.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lastcli.engine import recurrence
from lastcli.engine.precision import in_float64
from lastcli.engine.pytrees import DiagonalSystem
from lastcli.engine.scans import EXACT, passed_states, powers, read_out

__all__ = ["answer", "kernel", "simulate", "states"]

Array = Any


def simulate(system: DiagonalSystem | recurrence.Recurrence, u: Array) -> Array:
    """The layer's output for the input u, all states starting at zero.

    Args:
        system: the layer. A `Recurrence` answers one step (L = 1) from the states it holds.
        u: (n, L, F) real; MIMO F = m, multi-SISO F = G.

    Returns:
        (n, L, p) real for MIMO; (n, L, p·G) for multi-SISO, head-major: index c·G + g is output c of group g.
        D u is part of it where the system has a D.
    """
    if isinstance(system, recurrence.Recurrence):
        return recurrence.answer(system, jnp.asarray(u))
    u = jnp.asarray(u).astype(system.poles.real.dtype)
    return _convolve(system, u) if system.multi else _mimo(system, u)


@in_float64
def answer(system: DiagonalSystem, u: np.ndarray) -> np.ndarray:
    """`simulate` in float64, compiled, from NumPy to NumPy."""
    return np.asarray(_simulate(system, np.asarray(u, np.float64)))


_simulate = jax.jit(simulate)


def states(system: DiagonalSystem, u: Array) -> Array:
    """The states as the read-out at step k sees them: y[k] = s·Σ_d Re(C_d states[k, d]) + D u[k].

    With `delay` = 1 these are the states before the update; backward states run from the end of the sequence.

    Args:
        system: the layer.
        u: (n, L, F) real; MIMO F = m, multi-SISO F = G.

    Returns:
        (n, L, R, G, N·modes) complex.
    """
    u = jnp.asarray(u).astype(system.poles.real.dtype)
    passed = passed_states(system, u)
    x = lax.complex(passed[..., 0, :], passed[..., 1, :])  # (L, n, G, R, N·modes)
    return jnp.transpose(x, (1, 0, 3, 2, 4))


def kernel(system: DiagonalSystem, length: int) -> Array:
    """Impulse response of each direction, s·Re(C_d λ^(k - delay) B) for k = 0..length-1; D is not part of it.

    Returns:
        (G, R, p, m, length) real. Entry k of the backward direction acts on the input k steps ahead.
    """
    block = max(1, math.isqrt(max(length - 1, 0)) + 1)
    blocks = max(1, -(-length // block))
    fine = powers(system.poles, block)
    # λ^(q·block): powers of the pole to the block length, itself the last fine power times the pole.
    coarse = powers(fine[..., -1] * system.poles, blocks)
    left = jnp.einsum("grcn,gnm,gnq->grcmqn", system.C, system.B, coarse, precision=EXACT)
    response = _real_product("grcmqn,gnk->grcmqk", left, fine)
    response = system.pairing * response.reshape(*response.shape[:4], -1)[..., :length]
    if system.delay:
        response = jnp.pad(response, [(0, 0)] * 4 + [(system.delay, 0)])[..., :length]
    return response


def _real_product(subscripts: str, a: Array, b: Array) -> Array:
    """Re(a·b) by two real products, half the work of the complex one."""
    real = jnp.einsum(subscripts, a.real, b.real, precision=EXACT)
    return real - jnp.einsum(subscripts, a.imag, b.imag, precision=EXACT)


def _mimo(system: DiagonalSystem, u: Array) -> Array:
    y = jnp.swapaxes(read_out(system, u), 0, 1)
    if system.D is None:
        return y
    if system.feedthrough == "diagonal":
        width = min(system.outputs, system.inputs)
        direct = u[..., :width] * jnp.diagonal(system.D[0])[None, None]
        return y + jnp.pad(direct, [(0, 0), (0, 0), (0, system.outputs - width)])
    return y + jnp.einsum("nlm,cm->nlc", u, system.D[0], precision=EXACT)


def _convolve(system: DiagonalSystem, u: Array) -> Array:
    from scipy.fft import next_fast_len

    length = u.shape[1]
    response = kernel(system, length)[..., 0, :]
    if system.D is not None:
        response = response.at[:, 0, :, 0].add(system.D[..., 0])
    size = next_fast_len(2 * length - 1, real=True)
    circular = jnp.pad(response[:, 0], [(0, 0), (0, 0), (0, size - length)])
    if system.bidirectional:
        # Lag -j sits at the end of the circular kernel; lag 0 is shared.
        ahead = jnp.pad(response[:, 1], [(0, 0), (0, 0), (0, size - length)])
        circular = circular + jnp.roll(ahead[..., ::-1], 1, axis=-1)
    spectrum = jnp.fft.rfft(circular, axis=-1)
    drive = jnp.fft.rfft(jnp.swapaxes(u, 1, 2), n=size, axis=-1)
    y = jnp.fft.irfft(drive[:, None] * jnp.swapaxes(spectrum, 0, 1)[None], n=size, axis=-1)[..., :length]
    return jnp.moveaxis(y, -1, 1).reshape(u.shape[0], length, -1)
