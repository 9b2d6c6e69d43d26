"""The linear recurrence of a `DiagonalSystem` over a sequence: x ↦ λ ∘ x + B u, step by step, and what is read of it.

On a CPU one long loop wins. The read-out of a MIMO layer goes through it in blocks of a few dozen steps: B u of a block
is one product, the loop inside is elementwise, and C x is one product again, so that the states of a block stay in the
cache and the products are as fast as the machine's. A layer of few states spends its time on the steps themselves:
there a block is one product with the powers of the poles, and only the ends of the blocks are linked step by step,
which is faster to differentiate. Elsewhere a step costs a launch: the sequence is cut into √L
chunks that are scanned side by side, and the chunk ends are linked by a second scan; 3√L steps in a row instead of L,
without the log₂ L passes over memory of an associative scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from lastcli.engine.pytrees import DiagonalSystem

__all__ = ["EXACT", "powers", "read_out", "scan"]

Array = Any
Pair = tuple[Array, Array]  # real and imaginary part
Read = Callable[[int, Array, Array], Array]

# A GPU multiplies float32 matrices in a shorter format unless told not to; 1e-3 would be lost.
EXACT = lax.Precision.HIGHEST
# Steps a product on a CPU. The loop inside is not unrolled: that takes long to compile, searches most of all.
_BLOCK = 32
# States up to which a block is a product with the powers of the poles, and the most steps of such a block: its work
# grows with their number. Measured at 196 steps: 8 states 1.9 ms against 2.7 (with the gradient 4.7 against 13.5), 16
# states 3.1 against 2.5 (10 against 16), 32 states 13 against 5.
_FEW, _SHORT_BLOCK = 16, 14


def powers(poles: Array, length: int) -> Array:
    """λ^0 … λ^(length-1) along a new last axis, by doubling; 0^0 = 1."""
    result = jnp.ones_like(poles)[..., None]
    factor = poles[..., None]
    while result.shape[-1] < length:
        result = jnp.concatenate([result, result * factor], axis=-1)
        factor = factor * factor
    return result[..., :length]


def read_out(system: DiagonalSystem, u: Array) -> tuple[Array, ...]:
    """s·Re(C_d x[k - delay]) of a MIMO layer at every step.

    Args:
        system: the layer, one group.
        u: (n, L, m) real.

    Returns:
        (L, n, p) for each direction, in its own order of time.
    """
    C = system.pairing * system.C[0]
    weights = jnp.swapaxes(jnp.concatenate([C.real, -C.imag], axis=-1), 1, 2)

    def read(d: int, re: Array, im: Array) -> Array:
        return jnp.dot(jnp.concatenate([re[:, 0], im[:, 0]], axis=-1), weights[d], precision=EXACT)

    if not system.poles.shape[1]:
        return tuple(jnp.zeros((u.shape[1], u.shape[0], system.outputs), u.dtype) for _ in range(system.directions))
    on_cpu = _multiplied if system.poles.shape[1] <= _FEW else _blocked
    return lax.platform_dependent(cpu=lambda: on_cpu(system, u, weights), default=lambda: _chunked_scan(system, u, read, _chunks(u)))


def _blocked(system: DiagonalSystem, u: Array, weights: Array) -> tuple[Array, ...]:
    """`read_out` with a product a block; weights (R, 2P, p) read the real and imaginary parts side by side.

    Of a sequence that is read from both ends B u is one product for both directions, and kept for all of its steps.
    """
    n, length, width = u.shape
    P = system.poles.shape[1]
    drives, poles = _drives(system), system.poles[0]
    size = min(_BLOCK, length)
    blocks = -(-length // size)
    u = jnp.pad(u, [(0, 0), (0, blocks * size - length), (0, 0)])
    u = jnp.swapaxes(u, 0, 1).reshape(blocks, size * n, width)
    both = system.bidirectional
    given = jnp.dot(u, drives, precision=EXACT) if both else u

    def step(x: Pair, v: Array) -> tuple[Pair, Array]:
        after = _times(poles, x, (v[:, :P], v[:, P:]))
        return after, jnp.concatenate(x if system.delay else after, axis=-1)

    def run(d: int) -> Array:
        def block(x: Pair, v: Array) -> tuple[Pair, Array]:
            drive = v if both else jnp.dot(v, drives, precision=EXACT)
            x, passed = lax.scan(step, x, drive.reshape(size, n, 2 * P), reverse=d > 0)
            return x, jnp.dot(passed.reshape(size * n, 2 * P), weights[d], precision=EXACT)

        read = lax.scan(block, _zero((n, P), u), given, reverse=d > 0)[1].reshape(blocks * size, n, -1)[:length]
        return read[::-1] if d else read

    return tuple(run(d) for d in range(system.directions))


def _multiplied(system: DiagonalSystem, u: Array, weights: Array) -> tuple[Array, ...]:
    """`read_out` with the steps inside a block as one product, [λ^(i-j)] for i ≥ j; weights as for `_blocked`.

    A product with 0 keeps what is not finite: where an input is infinite, all steps of its block are NaN.
    """
    n, length, _ = u.shape
    R, P = system.directions, system.poles.shape[1]
    size = min(_SHORT_BLOCK, math.isqrt(max(length - 1, 0)) + 1)
    blocks = -(-length // size)
    drive = jnp.dot(u, _drives(system), precision=EXACT)
    drive = jnp.concatenate([drive, drive[:, ::-1]]) if system.bidirectional else drive
    drive = jnp.pad(drive, [(0, 0), (0, blocks * size - length), (0, 0)]).reshape(R * n * blocks, size, 2, P)
    drive = drive.transpose(3, 2, 1, 0).reshape(P, 2 * size, R * n * blocks)

    power = powers(system.poles[0], size + 1)  # (P, size + 1)
    lag = np.arange(size)[:, None] - np.arange(size)[None]
    inside = jnp.where(lag >= 0, power[:, np.maximum(lag, 0)], 0)
    x = jnp.matmul(_real_form(inside), drive, precision=EXACT)
    ends = jnp.moveaxis(x.reshape(P, 2, size, R * n, blocks)[:, :, -1], 3, 0)  # (blocks, P, 2, R·n)
    leap = power[:, -1, None]

    def link(start: Pair, end: Array) -> tuple[Pair, Pair]:
        re = leap.real * start[0] - leap.imag * start[1] + end[:, 0]
        im = leap.real * start[1] + leap.imag * start[0] + end[:, 1]
        return (re, im), start

    starts = lax.scan(link, _zero((P, R * n), u), ends)[1]
    start = jnp.stack(starts).transpose(2, 0, 3, 1).reshape(P, 2, R * n * blocks)
    x = x + jnp.matmul(_real_form(power[:, 1:, None]), start, precision=EXACT)

    x = x.reshape(P, 2, size, R * n * blocks).transpose(3, 2, 1, 0).reshape(R * n, blocks * size, 2 * P)
    x = jnp.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :length] if system.delay else x[:, :length]
    return tuple(jnp.swapaxes(jnp.matmul(x[d * n : (d + 1) * n], weights[d], precision=EXACT), 0, 1) for d in range(R))


def _drives(system: DiagonalSystem) -> Array:
    """[Re B, Im B] of a MIMO layer, (m, 2P), to be multiplied from the right."""
    B = system.B[0]
    return jnp.concatenate([B.real, B.imag], axis=0).T


def _real_form(matrices: Array) -> Array:
    """(P, a, b) complex matrices as (P, 2a, 2b) real ones that act on real parts above imaginary parts."""
    re, im = matrices.real, matrices.imag
    return jnp.concatenate([jnp.concatenate([re, -im], axis=2), jnp.concatenate([im, re], axis=2)], axis=1)


def scan(system: DiagonalSystem, u: Array, read: Read) -> tuple[Array, ...]:
    """read(d, Re x, Im x) of x[k - delay] at every step: an array (L, n, ...) a direction, in its own order of time."""
    if _chunks(u) == 1:
        return _chunked_scan(system, u, read, 1)
    return lax.platform_dependent(
        cpu=lambda: _chunked_scan(system, u, read, 1),
        default=lambda: _chunked_scan(system, u, read, _chunks(u)),
    )


def _chunks(u: Array) -> int:
    """Into how many parts a sequence is cut where a step costs a launch."""
    length = int(u.shape[1])
    return 1 if length < 64 else math.isqrt(length)


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
    drives, split = _drives(system), system.poles.shape[1]

    def advance(x: Pair, u: Array) -> Pair:
        drive = jnp.dot(u, drives, precision=EXACT)[:, None]
        return _times(system.poles, x, (drive[..., :split], drive[..., split:]))

    return advance


def _joined(starts: Array) -> Array:
    return jnp.swapaxes(starts, 0, 1).reshape(starts.shape[0] * starts.shape[1], *starts.shape[2:])  # P may be 0


def _zero(shape: tuple[int, ...], like: Array) -> Pair:
    return jnp.zeros(shape, like.dtype), jnp.zeros(shape, like.dtype)


def _times(poles: Array, x: Pair, add: Pair) -> Pair:
    """λ x + add in real and imaginary parts: complex loops are several times slower on a CPU."""
    re = poles.real[None] * x[0] - poles.imag[None] * x[1]
    im = poles.real[None] * x[1] + poles.imag[None] * x[0]
    return re + add[0], im + add[1]
