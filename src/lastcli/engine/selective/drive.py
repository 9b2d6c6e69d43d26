"""What drives the kept states of S6 fitted as its read-out is: B' = T [W_C; W_B; W_δ] x, folded into the rows of B.

The answer of a layer is bilinear in what makes B and what makes C. With C as it is, state n driven by the map m_p of x
alone is h_np, h_n = Σ_p T_np h_np, and the layer's answer is linear in T::

    out[t] = Σ_n Σ_p T_np C_n[t] W_o (g[t] ∘ h_np[t]) + Σ_d D_d g_d[t] x_d[t] W_o,d

So T comes from one Gram matrix over N·P features, and the read-out is fitted once more to what then arrives. A and the
step stay as they are.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from lastcli.engine.precision import in_float64
from lastcli.engine.protocol import Signals
from lastcli.engine.readout import RIDGE, one_observation
from lastcli.engine.selective.fit import fit_projection
from lastcli.engine.selective.mixer import along, answer, inner_of
from lastcli.engine.selective.moments import CHUNK_BYTES, accumulate, empty_moments, wide
from lastcli.engine.selective.pytrees import S6System
from lastcli.engine.selective.readout import fold
from lastcli.engine.selective.scan import chunked, s6_states

__all__ = ["fit_drive"]

Array = Any

# Steps of a chunk: every state is held P times.
_STEPS = 8


def fit_drive(original: S6System, reduced: S6System, signals: Signals) -> S6System:
    """The reduced layer with what makes B fitted to the targets of `signals`, and then its read-out once more.

    Args:
        original: the layer before states were dropped; the maps are its rows of C, B and the step.
        reduced: the kept states with their fitted read-out.
        signals: as `protocol.Signals`.

    Returns:
        The new layer; `reduced` where its squared error on `signals` is no larger.
    """
    maps = np.concatenate([original.to_C, original.to_B, original.to_step]).astype(np.float64)
    driven = reduced.replace(to_B=_drive(reduced, maps, signals) @ maps)
    moments = empty_moments(driven)
    for u, target, weights in signals():
        moments = accumulate(moments, driven, u, weights, target)
    fitted = fit_projection(fold(driven, np.arange(driven.states)[None], moments), signals)
    return fitted if _error(fitted, signals) < _error(reduced, signals) else reduced


@in_float64
def _drive(system: S6System, maps: np.ndarray, signals: Signals) -> np.ndarray:
    """T, (N, P): the least squares solution, pulled towards the T that is there."""
    F, layer = system.states * len(maps), wide(system)
    gram, cross, weight = np.zeros((F, F)), np.zeros(F), 0.0
    size = max(1, CHUNK_BYTES // (8 * _STEPS * F * (system.channels + system.inputs)))
    for u, target, weights in signals():
        for start in range(0, len(u), size):
            part = [np.asarray(array[start : start + size], np.float64) for array in (u, target, weights)]
            part[1] = np.where(part[2][..., None] > 0, part[1], 0)
            sums = _sums(layer, maps, *part)
            gram, cross, weight = gram + np.asarray(sums[0]), cross + np.asarray(sums[1]), weight + part[2].sum()
    there = np.linalg.lstsq(maps.T, np.asarray(system.to_B, np.float64).T, rcond=None)[0].T
    if not weight > 0:
        return there
    scale = np.sqrt(np.diagonal(gram) / weight)
    scale = np.where(scale > 0, scale, 1)
    M = gram / (weight * np.outer(scale, scale))
    left = cross / (weight * scale) - M @ (there.reshape(-1) * scale)
    ridge = RIDGE + float(one_observation(weight, 1))
    change = linalg.solve(M + ridge * np.eye(F), left, assume_a="pos") / scale
    return there + change.reshape(there.shape)


@jax.jit
def _sums(system: S6System, maps: Array, u: Array, target: Array, weights: Array) -> tuple[Array, Array]:
    """Gram matrix (N·P, N·P) of the features and (N·P,) of the target and them, summed over the steps."""
    inner = inner_of(system, u)
    out, P, N = system.out_proj, len(maps), system.states
    wanted = target - (along(system.D, 3) * inner.x * inner.gate) @ out.T
    if system.out_bias is not None:
        wanted = wanted - along(system.out_bias, 3)
    A = jnp.repeat(system.A, P, axis=1)

    def body(carry: tuple, part: tuple) -> tuple[tuple, None]:
        h, gram, cross = carry
        x, gate, step, C, y, w = part
        h, states = s6_states(h, A, step, x, jnp.tile(x @ maps.T, (1, 1, N)))
        V = jnp.einsum("hd,ntdk->nthk", out, states * gate[..., None]) * jnp.repeat(C, P, axis=2)[:, :, None]
        rows = V.reshape(-1, N * P)
        weighted = rows * jnp.repeat(w.reshape(-1), len(out))[:, None]
        return (h, gram + weighted.T @ rows, cross + weighted.T @ y.reshape(-1)), None

    start = (jnp.zeros((len(u), *A.shape)), jnp.zeros((N * P, N * P)), jnp.zeros(N * P))
    parts = (inner.x, inner.gate, inner.step, inner.C, wanted, weights)
    (_, gram, cross), _ = chunked(body, start, parts, _STEPS)
    return gram, cross


def _error(system: S6System, signals: Signals) -> float:
    """Squared error over all of `signals`."""
    total = 0.0
    for u, target, weights in signals():
        wrong = np.where(weights[..., None] > 0, np.asarray(target, np.float64) - answer(system, u), 0)
        total += float((weights[..., None] * wrong**2).sum())
    return total if np.isfinite(total) else np.inf
