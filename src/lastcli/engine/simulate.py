"""Response of a `DiagonalSystem` to an input: states, output and impulse response.

A MIMO layer is a linear recurrence over its states, scanned with the products by B and C inside the loop, so that the
states themselves never reach memory. Off the CPU the sequence is cut into √L chunks that are scanned side by side, and
the chunk ends are linked by a second scan: 3√L steps in a row instead of L, without the log₂ L passes over memory of
an associative scan. A multi-SISO layer is convolved with its kernel by FFT; the kernel is a product of two small
Vandermonde matrices.

Nothing takes the logarithm or a negative power of a pole, so poles at zero (masked states) give finite values and
finite gradients. Everything is traceable by `jax.jit` and `jax.vmap` and runs in the precision of the system's arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lastcli.engine.precision import in_float64
from lastcli.engine.pytrees import DiagonalSystem

__all__ = ["answer", "kernel", "powers", "simulate", "states"]

Array = Any
Pair = tuple[Array, Array]  # real and imaginary part
Read = Callable[[int, Array, Array], Array]

# A GPU multiplies float32 matrices in a shorter format unless told not to; 1e-3 would be lost.
_EXACT = lax.Precision.HIGHEST


def simulate(system: DiagonalSystem, u: Array) -> Array:
    """The layer's output for the input u, all states starting at zero.

    Args:
        system: the layer.
        u: (n, L, F) real; MIMO F = m, multi-SISO F = G.

    Returns:
        (n, L, p) real for MIMO; (n, L, p·G) for multi-SISO, head-major: index c·G + g is output c of group g.
        D u is part of it where the system has a D.
    """
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
    parts = _scan(system, u, lambda d, re, im: lax.complex(re, im))
    x = jnp.stack([part[::-1] if d else part for d, part in enumerate(parts)], axis=2)
    return jnp.swapaxes(x, 0, 1)


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
    left = jnp.einsum("grcn,gnm,gnq->grcmqn", system.C, system.B, coarse, precision=_EXACT)
    response = _real_product("grcmqn,gnk->grcmqk", left, fine)
    response = system.pairing * response.reshape(*response.shape[:4], -1)[..., :length]
    if system.delay:
        response = jnp.pad(response, [(0, 0)] * 4 + [(system.delay, 0)])[..., :length]
    return response


def powers(poles: Array, length: int) -> Array:
    """λ^0 … λ^(length-1) along a new last axis, by doubling; 0^0 = 1."""
    result = jnp.ones_like(poles)[..., None]
    factor = poles[..., None]
    while result.shape[-1] < length:
        result = jnp.concatenate([result, result * factor], axis=-1)
        factor = factor * factor
    return result[..., :length]


def _real_product(subscripts: str, a: Array, b: Array) -> Array:
    """Re(a·b) by two real products, half the work of the complex one."""
    real = jnp.einsum(subscripts, a.real, b.real, precision=_EXACT)
    return real - jnp.einsum(subscripts, a.imag, b.imag, precision=_EXACT)


def _mimo(system: DiagonalSystem, u: Array) -> Array:
    C = system.pairing * system.C[0]
    weights = jnp.swapaxes(jnp.concatenate([C.real, -C.imag], axis=-1), 1, 2)

    def read(d: int, re: Array, im: Array) -> Array:
        return jnp.dot(jnp.concatenate([re[:, 0], im[:, 0]], axis=-1), weights[d], precision=_EXACT)

    parts = _scan(system, u, read)
    y = jnp.swapaxes(parts[0] + parts[1][::-1] if system.bidirectional else parts[0], 0, 1)
    if system.D is None:
        return y
    if system.feedthrough == "diagonal":
        width = min(system.outputs, system.inputs)
        direct = u[..., :width] * jnp.diagonal(system.D[0])[None, None]
        return y + jnp.pad(direct, [(0, 0), (0, 0), (0, system.outputs - width)])
    return y + jnp.einsum("nlm,cm->nlc", u, system.D[0], precision=_EXACT)


def _scan(system: DiagonalSystem, u: Array, read: Read) -> tuple[Array, ...]:
    """read(d, Re x, Im x) of x[k - delay] at every step: an array (L, n, ...) a direction, in its own order of time."""
    length = u.shape[1]
    if length < 64:
        return _chunked_scan(system, u, read, 1)
    # On a CPU one long loop wins: its products stay in cache. Elsewhere a step costs a launch, so few long steps win.
    return lax.platform_dependent(
        cpu=lambda: _chunked_scan(system, u, read, 1),
        default=lambda: _chunked_scan(system, u, read, math.isqrt(length)),
    )


def _chunked_scan(system: DiagonalSystem, u: Array, read: Read, chunks: int) -> tuple[Array, ...]:
    n, length, width = u.shape
    R, G, P = system.directions, system.groups, system.poles.shape[1]
    advance = _advance(system)
    u = jnp.concatenate([u, u[:, ::-1]]) if system.bidirectional else u
    if chunks > 1:
        size = -(-length // chunks)
        u = jnp.pad(u, [(0, 0), (0, size * chunks - length), (0, 0)]).reshape(R * n * chunks, size, width)
    u = jnp.swapaxes(u, 0, 1)
    start = _zero((u.shape[1], G, P), u)

    if chunks > 1:  # where each chunk starts: scan the chunks from zero, then link their ends
        ends = lax.scan(lambda x, v: (advance(x, v), None), start, u)[0]
        re, im = (jnp.swapaxes(end.reshape(R * n, chunks, G, P), 0, 1) for end in ends)
        leap = powers(system.poles, u.shape[0] + 1)[..., -1]
        starts = lax.scan(lambda x, end: (_times(leap, x, end), x), _zero((R * n, G, P), u), (re, im))[1]
        start = _joined(starts[0]), _joined(starts[1])

    def step(x: Pair, v: Array) -> tuple[Pair, tuple[Array, ...]]:
        after = advance(x, v)
        re, im = (jnp.split(part, R) for part in (x if system.delay else after))
        return after, tuple(read(d, re[d], im[d]) for d in range(R))

    out = lax.scan(step, start, u)[1]
    if chunks == 1:
        return out
    return tuple(
        jnp.moveaxis(part.reshape(-1, n, chunks, *part.shape[2:]), 0, 2)  # (n, chunks, size, ...)
        .reshape(n, -1, *part.shape[2:])[:, :length]
        .swapaxes(0, 1)
        for part in out
    )


def _advance(system: DiagonalSystem) -> Callable[[Pair, Array], Pair]:
    """x, u → λ ∘ x + B u for the parts of x (n, G, N·modes) each, and u (n, F)."""
    if system.multi:
        B = system.B[..., 0]
        return lambda x, u: _times(system.poles, x, (u[..., None] * B.real[None], u[..., None] * B.imag[None]))
    B = system.B[0]
    both, split = jnp.concatenate([B.real, B.imag], axis=0).T, B.shape[0]

    def advance(x: Pair, u: Array) -> Pair:
        drive = jnp.dot(u, both, precision=_EXACT)[:, None]
        return _times(system.poles, x, (drive[..., :split], drive[..., split:]))

    return advance


def _joined(starts: Array) -> Array:
    return jnp.swapaxes(starts, 0, 1).reshape(-1, *starts.shape[2:])


def _zero(shape: tuple[int, ...], like: Array) -> Pair:
    return jnp.zeros(shape, like.dtype), jnp.zeros(shape, like.dtype)


def _times(poles: Array, x: Pair, add: Pair) -> Pair:
    """λ x + add in real and imaginary parts: complex loops are several times slower on a CPU."""
    re = poles.real[None] * x[0] - poles.imag[None] * x[1]
    im = poles.real[None] * x[1] + poles.imag[None] * x[0]
    return re + add[0], im + add[1]


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
