"""The selective recurrences in chunks of time: what is in memory does not grow with the length of a sequence.

Between chunks only the state is carried. Inside one, S6 scans step by step on a CPU and side by side elsewhere; SSD is
a masked product of C and B (the dual form of Dao and Gu, arXiv 2405.21060, section 6). A step of zero leaves the state
as it is, which is how sequences are filled up to whole chunks. All functions are traceable and differentiable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["CHUNK", "chunked", "s6_scan", "s6_states", "ssd_scan", "ssd_states"]

Array = Any

CHUNK = 64

# A GPU multiplies float32 matrices in a shorter format unless told not to.
_EXACT = lax.Precision.HIGHEST


def chunked(
    body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, signals: Any, chunk: int = CHUNK
) -> tuple[Any, Any]:
    """`lax.scan` of a body over chunks of (n, L, ...) signals, filled up with zeros to whole chunks.

    Args:
        body: (carry, signals (n, Q, ...)) → (carry, outputs (n, Q, ...) or None).

    Returns:
        The last carry, and the outputs (n, L, ...).
    """
    length = jax.tree.leaves(signals)[0].shape[1]
    chunk = min(chunk, length)
    count = -(-length // chunk)

    def cut(array: Array) -> Array:
        padded = jnp.pad(array, [(0, 0), (0, count * chunk - length)] + [(0, 0)] * (array.ndim - 2))
        return jnp.moveaxis(padded.reshape(len(array), count, chunk, *array.shape[2:]), 1, 0)

    carry, outputs = lax.scan(jax.checkpoint(body), carry, jax.tree.map(cut, signals))

    def joined(array: Array) -> Array:
        apart = jnp.moveaxis(array, 0, 1)
        return apart.reshape(len(apart), count * chunk, *apart.shape[3:])[:, :length]

    return carry, jax.tree.map(joined, outputs)


def s6_states(h: Array, A: Array, step: Array, x: Array, B: Array) -> tuple[Array, Array]:
    """States of one chunk.

    Args:
        h: (n, d, N), the state before it.
        A: (d, N). step, x: (n, Q, d). B: (n, Q, N).

    Returns:
        The state after it, and those at every step (n, Q, d, N).
    """
    decay = jnp.exp(step[..., None] * A[None, None])
    drive = (step * x)[..., None] * B[:, :, None, :]
    if jax.default_backend() == "cpu":

        def forward(h: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
            h = item[0] * h + item[1]
            return h, h

        last, states = lax.scan(forward, h, (jnp.moveaxis(decay, 1, 0), jnp.moveaxis(drive, 1, 0)))
        return last, jnp.moveaxis(states, 0, 1)
    drive = drive.at[:, 0].add(decay[:, 0] * h)
    _, states = lax.associative_scan(lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]), (decay, drive), axis=1)
    return states[:, -1], states


def s6_scan(A: Array, step: Array, x: Array, B: Array, C: Array) -> Array:
    """C h of every step, (n, L, d), all states starting at zero; arguments as `s6_states`, C (n, L, N)."""
    h = jnp.zeros((len(x), *A.shape), x.dtype)
    if jax.default_backend() == "cpu":

        def forward(h: Array, item: tuple[Array, ...]) -> tuple[Array, Array]:
            step, x, B, C = item
            h = jnp.exp(step[..., None] * A[None]) * h + (step * x)[..., None] * B[:, None, :]
            return h, (h * C[:, None, :]).sum(axis=-1)

        def rows(h: Array, part: tuple[Array, ...]) -> tuple[Array, Array]:
            h, y = lax.scan(forward, h, tuple(jnp.moveaxis(item, 1, 0) for item in part))
            return h, jnp.moveaxis(y, 0, 1)

        return chunked(rows, h, (step, x, B, C))[1]

    def body(h: Array, part: tuple[Array, ...]) -> tuple[Array, Array]:
        step, x, B, C = part
        h, states = s6_states(h, A, step, x, B)
        return h, (states * C[:, :, None, :]).sum(axis=-1)

    return chunked(body, h, (step, x, B, C))[1]


def _by_head(groups: Array, heads: int) -> Array:
    """(..., G, N) → (..., heads, N): head i belongs to group i // (heads / G)."""
    return jnp.repeat(groups, heads // groups.shape[-2], axis=-2)


def ssd_states(h: Array, A: Array, step: Array, x: Array, B: Array) -> tuple[Array, Array]:
    """States of one chunk.

    Args:
        h: (n, heads, P, N), the state before it.
        A: (heads,). step: (n, Q, heads). x: (n, Q, heads, P). B: (n, Q, G, N).

    Returns:
        The state after it, and those at every step (n, Q, heads, P, N).
    """
    drive = (step[..., None] * x)[..., None] * _by_head(B, len(A))[..., None, :]

    def forward(h: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
        h = item[0][..., None, None] * h + item[1]
        return h, h

    decay = jnp.exp(step * A[None, None])
    last, states = lax.scan(forward, h, (jnp.moveaxis(decay, 1, 0), jnp.moveaxis(drive, 1, 0)))
    return last, jnp.moveaxis(states, 0, 1)


def ssd_scan(A: Array, step: Array, x: Array, B: Array, C: Array) -> Array:
    """C h of every step, (n, L, heads, P), all states starting at zero; arguments as `ssd_states`, C (n, L, G, N)."""
    heads = len(A)

    def body(h: Array, part: tuple[Array, ...]) -> tuple[Array, Array]:
        step, x, B, C = part
        Q = step.shape[1]
        total = jnp.cumsum(step * A[None, None], axis=1)  # (n, Q, heads): log of the decay since the chunk began
        later = jnp.tril(jnp.ones((Q, Q), bool))[None, :, :, None]
        gap = jnp.where(later, total[:, :, None] - total[:, None], -jnp.inf)
        weight = jnp.repeat(jnp.einsum("nqgk,nsgk->nqsg", C, B, precision=_EXACT), heads // B.shape[2], axis=3)
        driven = step[..., None] * x
        y = jnp.einsum("nqsh,nshp->nqhp", weight * jnp.exp(gap), driven, precision=_EXACT)
        C, B = _by_head(C, heads), _by_head(B, heads)
        y = y + jnp.exp(total)[..., None] * jnp.einsum("nqhk,nhpk->nqhp", C, h, precision=_EXACT)
        left = jnp.exp(total[:, -1:] - total)[..., None] * driven
        h = jnp.exp(total[:, -1])[..., None, None] * h + jnp.einsum("nqhp,nqhk->nhpk", left, B, precision=_EXACT)
        return h, y

    h = jnp.zeros((len(x), heads, x.shape[3], B.shape[3]), x.dtype)
    return chunked(body, h, (step, x, B, C))[1]
