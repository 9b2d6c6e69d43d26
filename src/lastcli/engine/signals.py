"""Inputs and wanted outputs of one layer in memory, for searches that look at them again and again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine import loops
from lastcli.engine.features import feature_count, features_of
from lastcli.engine.moments import Moments, group_signals
from lastcli.engine.readout import excluding, one_observation
from lastcli.engine.simulate import states
from lastcli.engine.system import DiagonalSystem, sum_by_set
from lastcli.errors import InputError

__all__ = [
    "SIGNAL_BYTES",
    "Signals",
    "divide_signals",
    "feature_moments",
    "load_signals",
    "relative_errors",
    "sequence_bytes",
    "signal_moments",
    "with_ridge",
]

Array = Any

# Complex states of one evaluation; of larger calibration splits only the first sequences are used.
SIGNAL_BYTES = 96 * 2**20


@partial(
    jax.tree_util.register_dataclass, data_fields=["u", "y", "root", "weight", "epsilon", "variance"], meta_fields=[]
)
@dataclass(frozen=True)
class Signals:
    """Inputs, wanted outputs and weights of every step.

    Attributes:
        u: (n, L, F).
        y: (n, L, p·G).
        root: (n, L), the square root of the weights, which sum to 1.
        weight: what they summed to before, 0-dimensional.
        epsilon: the ridge relative to `variance` and to the power of each input, 0-dimensional; 0 until `with_ridge`.
        variance: (G,), mean second moment of the start's features.
    """

    u: Array
    y: Array
    root: Array
    weight: Array
    epsilon: Array
    variance: Array


def load_signals(start: DiagonalSystem, signals: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Signals:
    """The first sequences that count and fit, of (u, target, weights) batch by batch.

    Raises:
        InputError: there are none, or they are not finite.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    room = SIGNAL_BYTES
    for u, y, weights in signals:
        each = sequence_bytes(start, u.shape[1])
        take = np.flatnonzero(weights.sum(axis=1) > 0)[: max(room // each, 0 if parts else 1)]
        if len(take):
            parts.append((np.asarray(u)[take], np.asarray(y)[take], np.asarray(weights)[take]))
            room -= each * len(take)
        if room < each:
            break
    if not parts:
        raise InputError("A pole refit needs calibration inputs, and there are none that count.")
    u, y, weights = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*parts))
    y = np.where(weights[..., None] > 0, y, 0)
    if not np.isfinite(u).all() or not np.isfinite(y).all():
        raise InputError("The calibration data give a layer inputs or outputs that are not finite; check the data.")
    root = np.sqrt(weights / weights.sum())
    return Signals(u, y, root, np.asarray(weights.sum()), np.zeros(()), np.zeros(start.groups))


def sequence_bytes(start: DiagonalSystem, length: int) -> int:
    """What the complex states of one sequence take."""
    return 16 * length * start.directions * int(start.poles.size)


def divide_signals(signals: Signals, held_back: float) -> tuple[Signals, Signals]:
    """What is fitted and what is held back, each with weights that sum to 1.

    Every k-th sequence is held back; of fewer than five sequences, the last of the steps of each that count.
    """
    n = len(signals.root)
    if n >= 5:
        rows = np.linspace(0, n - 1, min(max(round(held_back * n), 1), n - 1)).round().astype(int)
        held = np.isin(np.arange(n), rows)
        return _weighted(signals, ~held), _weighted(signals, held)
    counts = signals.root > 0
    own = counts.sum(axis=1, keepdims=True)
    behind = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]  # how many steps that count there are from this one on
    late = counts & (behind <= np.maximum(np.round(held_back * own), 1))
    parts = [dataclasses.replace(signals, root=signals.root * mask) for mask in (~late, late)]
    everyone = np.ones(n, dtype=bool)
    return _weighted(parts[0], everyone), _weighted(parts[1], everyone)


def _weighted(signals: Signals, rows: np.ndarray) -> Signals:
    share = (signals.root[rows] ** 2).sum()
    root = signals.root[rows] / np.sqrt(share if share > 0 else 1)
    weight = np.asarray(signals.weight * share)
    return dataclasses.replace(signals, u=signals.u[rows], y=signals.y[rows], root=root, weight=weight)


def with_ridge(signals: Signals, start: DiagonalSystem) -> Signals:
    """The same signals with the ridge of a refit on them: 1/(G·N), relative to the variance of the start's features.

    It stays what it is while a search moves the states, so that error and ridge together have an exact gradient.
    """
    x = loops.passed(start, loops.in_time(signals.u))
    squares = x.real**2 if start.real_readout else (x.real**2 + x.imag**2) / 2
    variance = np.einsum("lnrgk,ln->grk", squares, signals.root.T**2).mean(axis=(1, 2))
    return dataclasses.replace(signals, epsilon=one_observation(signals.weight, start.groups), variance=variance)


def signal_moments(system: DiagonalSystem, D: Array, signals: Signals) -> Moments:
    """Moments of the system's own states, with y - D u as target; traceable."""
    return feature_moments(features_of(states(system, signals.u), system), system, D, signals)


def feature_moments(features: Array, system: DiagonalSystem, D: Array, signals: Signals) -> Moments:
    """Moments of the features (G, n·L, F) at the steps of the signals, with y - D u as target; traceable.

    The features of the system's own states come first and have the ridge; others may follow.
    """
    root = signals.root.reshape(1, -1, 1)
    f = features * root
    own = jnp.arange(f.shape[2]) < feature_count(system)
    ridge = signals.epsilon * jnp.where(own[None], signals.variance[:, None], 0)
    v = group_signals(signals.u, system.groups, system.multi) * root
    y = group_signals(signals.y, system.groups, system.multi) * root
    vT, yT = jnp.swapaxes(v, 1, 2), jnp.swapaxes(y, 1, 2)
    found = Moments(
        features=jnp.swapaxes(f, 1, 2) @ f,
        input_features=vT @ f,
        inputs=vT @ v,
        cross=yT @ f,
        target_inputs=yT @ v,
        energy=(y**2).sum(axis=1),
        weight=jnp.array(jnp.inf),  # what ridge there is, is in features and inputs
    )
    left = excluding(found, D)
    return left.replace(
        features=left.features + ridge[:, :, None] * jnp.eye(f.shape[2])[None],
        inputs=left.inputs * (1 + signals.epsilon * jnp.eye(v.shape[2]))[None],
    )


def relative_errors(errors: Array, energy: Array, sets: int) -> Array:
    """Errors of a set's outputs over their energy, (S,)."""
    total = sum_by_set(energy.sum(axis=1), sets)
    return sum_by_set(errors.sum(axis=1), sets) / jnp.where(total > 0, total, 1)
