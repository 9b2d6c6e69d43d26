"""Refits over the inputs themselves, for what second moments cannot tell: the last projection, and all of SSD."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from lastcli.engine.precision import in_float64
from lastcli.engine.protocol import Signals
from lastcli.engine.readout import RIDGE
from lastcli.engine.selective.mixer import along, inner_of, mix, normalised
from lastcli.engine.selective.moments import wide
from lastcli.engine.selective.pytrees import S6System
from lastcli.engine.selective.scan import s6_scan
from lastcli.engine.selective.system import SSDSystem

__all__ = ["fit_layer", "fit_projection"]

Array = Any

# What a layer is fitted to is held in memory; of more inputs only the first sequences are used.
SIGNAL_BYTES = 256 * 2**20
STEPS = 500
LEARNING_RATE = 3e-3
BATCH = 64
_ROWS = 64


@in_float64
def fit_projection(system: S6System, signals: Signals) -> S6System:
    """The last projection that answers the targets of `signals` best; the old one where it is no worse.

    Args:
        system: the reduced layer, its read-out fitted.
        signals: as `protocol.Signals`.
    """
    layer, d, H = wide(system), system.channels, system.inputs
    gram, cross, energy, weight = np.zeros((d, d)), np.zeros((H, d)), 0.0, 0.0
    bias = 0.0 if layer.out_bias is None else layer.out_bias
    for u, target, weights in signals():
        for start in range(0, len(u), _ROWS):
            rows = slice(start, start + _ROWS)
            f = np.asarray(_before_projection(layer, np.asarray(u[rows], np.float64))).reshape(-1, d)
            w = np.asarray(weights[rows], np.float64).reshape(-1)
            y = np.where(w[:, None] > 0, np.asarray(target[rows], np.float64).reshape(-1, H) - bias, 0.0)
            fw = f * w[:, None]
            gram += fw.T @ f
            cross += (y * w[:, None]).T @ f
            energy, weight = energy + float((w[:, None] * y * y).sum()), weight + float(w.sum())
    if not weight > 0:
        return system
    # pulled towards the old projection, not towards zero: a direction that the inputs do not move says nothing
    pull = (RIDGE * weight + 1) * np.trace(gram) / (weight * d)
    left = cross - layer.out_proj @ gram
    change = linalg.solve(gram + pull * np.eye(d), left.T, assume_a="pos").T
    return system.replace(out_proj=layer.out_proj + change)


@jax.jit
def _before_projection(system: S6System, u: Array) -> Array:
    inner = inner_of(system, u)
    y = s6_scan(system.A, inner.step, inner.x, inner.B, inner.C) + along(system.D, 3) * inner.x
    return normalised(system, y, inner.gate)


_FITTED = (
    "to_B", "to_C", "B_bias", "C_bias", "conv_B", "conv_C", "conv_B_bias", "conv_C_bias", "D", "out_proj",
)  # fmt: skip


def fit_layer(system: SSDSystem, signals: Signals, *, steps: int = STEPS, seed: int = 0) -> SSDSystem:
    """The kept rows of B and C, their convolution, D and the last projection, fitted to the targets of `signals`.

    Between the projection of the inputs and B, C there are a convolution and a SiLU, and a norm may follow the gate:
    the answer is no linear function of anything but the last projection, so it is found by Adam (Kingma and Ba, arXiv
    1412.6980) from the truncated layer on, in float32, on minibatches of whole sequences. A fifth of the sequences is
    held back and decides which step is returned, the start among them.

    Args:
        system: the truncated layer, or one fitted before.
        signals: as `protocol.Signals`; only as many sequences as memory should hold are read.
        steps: of Adam.
        seed: of the minibatches.
    """
    import optax

    data = _held(signals())
    if data is None:
        return system
    u, target, weights = data
    n = len(u)
    held = np.arange(n) % 5 == 4 if n >= 5 else np.zeros(n, bool)
    fit, judge = np.flatnonzero(~held), np.flatnonzero(held if held.any() else ~held)
    layer = jax.tree.map(lambda array: np.asarray(array, np.float32), system)
    names = [name for name in _FITTED if getattr(layer, name) is not None]
    start = {name: jnp.asarray(getattr(layer, name)) for name in names}
    spread = float((weights[..., None] * target**2).sum() / max(weights.sum(), 1)) or 1.0
    optimiser = optax.apply_if_finite(optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps)), steps)
    values, state = start, optimiser.init(start)
    random = np.random.default_rng(seed)
    best, best_error = values, _error_of(layer, values, u, target, weights, judge)
    for done in range(1, steps + 1):
        rows = random.choice(fit, min(BATCH, len(fit)), replace=False)
        values, state = _advance(optimiser, layer, values, state, (u[rows], target[rows], weights[rows], spread))
        if done % 50 == 0 or done == steps:
            error = _error_of(layer, values, u, target, weights, judge)
            if error < best_error:
                best, best_error = values, error
    return system.replace(**{name: np.asarray(array, np.float64) for name, array in best.items()})


def _held(batches: Iterable[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Inputs, targets and weights of the sequences that count, in float32."""
    parts: list[tuple[np.ndarray, ...]] = []
    room = SIGNAL_BYTES
    for u, target, weights in batches:
        each = max(8 * u[0].size, 1)
        take = np.flatnonzero(weights.any(axis=1))[: max(room // each, 0 if parts else 1)]
        if len(take):
            target = np.where(weights[..., None] > 0, target, 0)
            parts.append(tuple(np.asarray(array[take], np.float32) for array in (u, target, weights)))
            room -= each * len(take)
        if room < each:
            break
    if not parts:
        return None
    u, target, weights = (np.concatenate(arrays) for arrays in zip(*parts))
    return u, target, weights


def _loss(layer: SSDSystem, values: Any, u: Array, target: Array, weights: Array) -> Array:
    answer = mix(layer.replace(**values), u)
    return (weights[..., None] * (answer - target) ** 2).sum()


_sum_of_squares = jax.jit(_loss)


def _error_of(layer: Any, values: Any, u: Array, target: Array, weights: Array, rows: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        total += float(_sum_of_squares(layer, values, u[part], target[part], weights[part]))
    return total if np.isfinite(total) else np.inf


@partial(jax.jit, static_argnums=0)
def _advance(optimiser: Any, layer: Any, values: Any, state: Any, data: tuple) -> tuple[Any, Any]:
    import optax

    u, target, weights, spread = data

    def loss(values: Any) -> Array:
        return _loss(layer, values, u, target, weights) / (weights.sum() * spread + 1e-12)

    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimiser.update(jax.grad(loss)(values), state)
    return optax.apply_updates(values, updates), state
