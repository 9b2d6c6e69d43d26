"""The linear recurrence of a `DiagonalSystem` over a sequence: x ↦ λ ∘ x + B u, step by step, and what is read of it.

The products of a MIMO layer, B u and C x, are taken outside of the loop over the steps, for all steps at once where
they fit a cache; what the loop does is elementwise. On a CPU one long loop wins, in each direction. Elsewhere a step
costs a launch: the sequence is cut into √L chunks that are scanned side by side, both directions together, and the
chunk ends are linked by a second scan; 3√L steps in a row instead of L, without the log₂ L passes over memory of an
associative scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax

from lastcli.engine.pytrees import DiagonalSystem

__all__ = ["EXACT", "passed_states", "powers", "read_out"]

Array = Any
Pair = tuple[Array, Array]  # real and imaginary part

# A GPU multiplies float32 matrices in a shorter format unless told not to; 1e-3 would be lost.
EXACT = lax.Precision.HIGHEST
# Up to so many bytes B u of all steps is kept on a CPU, and so are their states: products of many rows are the fastest.
# What is larger fits no cache, and comes in blocks of a few steps. The loop inside is not unrolled: that takes long to
# compile, searches most of all.
_KEPT_BYTES, _BLOCK = 14 << 20, 32


def powers(poles: Array, length: int) -> Array:
    """λ^0 … λ^(length-1) along a new last axis, by doubling; 0^0 = 1."""
    result = jnp.ones_like(poles)[..., None]
    factor = poles[..., None]
    while result.shape[-1] < length:
        result = jnp.concatenate([result, result * factor], axis=-1)
        factor = factor * factor
    return result[..., :length]


def read_out(system: DiagonalSystem, u: Array) -> Array:
    """s·Σ_d Re(C_d x_d[k - delay]) of a MIMO layer at every step.

    Args:
        system: the layer, one group.
        u: (n, L, m) real.

    Returns:
        (L, n, p), in the order of time.
    """
    n, length, _ = u.shape
    P = system.poles.shape[1]
    if not P:
        return jnp.zeros((length, n, system.outputs), u.dtype)
    C = system.pairing * system.C[0]
    weights = jnp.swapaxes(jnp.concatenate([C.real, -C.imag], axis=-1), 1, 2)

    def at_once() -> Array:
        passed = passed_states(system, u)[:, :, 0].reshape(length, n, -1)
        return jnp.dot(passed, jnp.concatenate(weights), precision=EXACT)

    if 2 * P * n * length * u.dtype.itemsize <= _KEPT_BYTES:
        return at_once()
    in_blocks = partial(_read_in_blocks, system, u, weights)
    return lax.platform_dependent(cpu=in_blocks, default=at_once)


def passed_states(system: DiagonalSystem, u: Array) -> Array:
    """x[k - delay] of each direction at every step, starting from zero.

    Args:
        system: the layer.
        u: (n, L, F) real; MIMO F = m, multi-SISO F = G.

    Returns:
        (L, n, G, R, 2, N·modes) real and imaginary parts, in the order of time.
    """
    # put in the order of time before the product: XLA copies a product twice to do it after
    drive = jnp.swapaxes(u, 0, 1)
    if not system.multi:
        drive = jnp.dot(drive, _drives(system), precision=EXACT)
    if _chunks(u) == 1:
        return _passed_in_order(system, drive)
    return lax.platform_dependent(
        cpu=partial(_passed_in_order, system, drive), default=partial(_passed_in_chunks, system, drive, _chunks(u))
    )


def _chunks(u: Array) -> int:
    """Into how many parts a sequence is cut where a step costs a launch."""
    length = int(u.shape[1])
    return 1 if length < 64 else math.isqrt(length)


def _read_in_blocks(system: DiagonalSystem, u: Array, weights: Array) -> Array:
    """`read_out` with the products of a block of steps at a time; weights (R, 2P, p) read [Re x, Im x]."""
    n, length, width = u.shape
    blocks = -(-length // _BLOCK)
    size = -(-length // blocks)
    u = jnp.pad(u, [(0, 0), (0, blocks * size - length), (0, 0)])
    u = jnp.swapaxes(u, 0, 1).reshape(blocks, size * n, width)
    drives, step = _drives(system), _step(system)

    def run(d: int) -> Array:
        def block(x: Pair, v: Array) -> tuple[Pair, Array]:
            drive = jnp.dot(v, drives, precision=EXACT).reshape(size, n, -1)
            x, passed = lax.scan(step, x, drive, reverse=d > 0)
            return x, jnp.dot(passed.reshape(size * n, -1), weights[d], precision=EXACT)

        return lax.scan(block, _zero(system, n, u), u, reverse=d > 0)[1].reshape(blocks * size, n, -1)[:length]

    return sum((run(d) for d in range(1, system.directions)), start=run(0))


def _passed_in_order(system: DiagonalSystem, drive: Array) -> Array:
    """`passed_states` by one loop a direction; drive (L, n, 2P), or (L, n, G) of a multi-SISO layer."""
    step, start = _step(system), _zero(system, drive.shape[1], drive)
    passed = [lax.scan(step, start, drive, reverse=d > 0)[1] for d in range(system.directions)]
    return jnp.stack([_by_group(system, part) for part in passed], axis=3)


def _passed_in_chunks(system: DiagonalSystem, drive: Array, chunks: int) -> Array:
    """`passed_states` with the chunks of all sequences and directions side by side; drive as for `_passed_in_order`."""
    length, n, width = drive.shape
    R, rows = system.directions, system.directions * drive.shape[1]
    step = _step(system)
    drive = jnp.concatenate([drive, drive[::-1]], axis=1) if system.bidirectional else drive
    size = -(-length // chunks)
    drive = jnp.pad(drive, [(0, size * chunks - length), (0, 0), (0, 0)]).reshape(chunks, size, rows, width)
    drive = jnp.swapaxes(drive, 0, 1).reshape(size, chunks * rows, width)

    # where each chunk starts: scan the chunks from zero, then link their ends
    zero = _zero(system, rows, drive)
    ends = lax.scan(lambda x, v: (step(x, v)[0], None), _zero(system, chunks * rows, drive), drive)[0]
    leap = powers(system.poles if system.multi else system.poles[0], size + 1)[..., -1]
    by_chunk = tuple(end.reshape(chunks, rows, *end.shape[1:]) for end in ends)
    starts = lax.scan(lambda x, end: (_times(leap, x, end), x), zero, by_chunk)[1]
    start = tuple(part.reshape(chunks * rows, *part.shape[2:]) for part in starts)

    passed = lax.scan(step, start, drive)[1]
    passed = jnp.swapaxes(passed.reshape(size, chunks, rows, *passed.shape[2:]), 0, 1)
    passed = passed.reshape(size * chunks, R, n, *passed.shape[3:])[:length]
    parts = [_by_group(system, passed[::-1, d] if d else passed[:, d]) for d in range(R)]
    return jnp.stack(parts, axis=3)


def _by_group(system: DiagonalSystem, passed: Array) -> Array:
    """(L, n, 2P), or (L, n, G, 2P) of a multi-SISO layer, as (L, n, G, 2, P)."""
    length, n = passed.shape[:2]
    return passed.reshape(length, n, system.groups, 2, system.poles.shape[1])


def _step(system: DiagonalSystem) -> Callable[[Pair, Array], tuple[Pair, Array]]:
    """x and what drives a step → the next x, and what is read at this step as [Re x, Im x].

    x is (n, P) and the drive [Re B u, Im B u], (n, 2P); of a multi-SISO layer x is (n, G, P) and the drive u, (n, G).
    """
    P = system.poles.shape[1]
    if system.multi:
        B, poles = system.B[..., 0], system.poles

        def driven(v: Array) -> Pair:
            return v[..., None] * B.real[None], v[..., None] * B.imag[None]
    else:
        poles = system.poles[0]

        def driven(v: Array) -> Pair:
            return v[:, :P], v[:, P:]

    def step(x: Pair, v: Array) -> tuple[Pair, Array]:
        after = _times(poles, x, driven(v))
        return after, jnp.concatenate(x if system.delay else after, axis=-1)

    return step


def _drives(system: DiagonalSystem) -> Array:
    """[Re B, Im B] of a MIMO layer, (m, 2P), to be multiplied from the right."""
    B = system.B[0]
    return jnp.concatenate([B.real, B.imag], axis=0).T


def _zero(system: DiagonalSystem, n: int, like: Array) -> Pair:
    shape = (n, *(system.poles.shape if system.multi else system.poles.shape[1:]))
    return jnp.zeros(shape, like.dtype), jnp.zeros(shape, like.dtype)


def _times(poles: Array, x: Pair, add: Pair) -> Pair:
    """λ x + add in real and imaginary parts: complex loops are several times slower on a CPU."""
    re = poles.real[None] * x[0] - poles.imag[None] * x[1]
    im = poles.real[None] * x[1] + poles.imag[None] * x[0]
    return re + add[0], im + add[1]
