"""Real features of a diagonal layer and the read-out over them.

The refit and the elimination are linear least squares, so a complex state is two real features. One stored state owns
one contiguous block of 2·R·modes features, ordered mode, direction, (real, imaginary)::

    f = [... Re x⁺_j, Im x⁺_j, Re x⁻_j, Im x⁻_j ...]        y = W f + D u,   W = s·[Re C, -Im C]

so dropping a state is dropping a block. Where the modes of a state share one read-out, their sum is the feature and the
block has 2·R features.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from lastcli.engine.embedding import kept_indices
from lastcli.engine.system import DiagonalSystem

__all__ = [
    "block_size",
    "feature_count",
    "feature_indices",
    "features_of",
    "merged",
    "readout_of",
    "readout_to_C",
]

Array = Any


def block_size(system: DiagonalSystem) -> int:
    """Real features of one stored state: 2·R·modes, or 2·R where the modes share a read-out."""
    return 2 * system.directions * system.modes // merged(system)


def merged(system: DiagonalSystem) -> int:
    """How many modes one feature is the sum of."""
    return system.modes if system.shared_readout else 1


def feature_count(system: DiagonalSystem) -> int:
    """F, the real features of one group."""
    return system.states * block_size(system)


def features_of(states: Array, merge: int = 1) -> Array:
    """Real features (G, n·L, F) of complex states (n, L, R, G, N·modes); `merge` modes are summed to one feature."""
    if merge > 1:
        states = states.reshape(*states.shape[:-1], -1, merge).sum(axis=-1)
    n, length, directions, groups, modes = states.shape
    by_group = jnp.transpose(states, (3, 0, 1, 4, 2))
    parts = jnp.stack([by_group.real, by_group.imag], axis=-1)
    return parts.reshape(groups, n * length, modes * directions * 2)


def readout_of(system: DiagonalSystem) -> Array:
    """W (G, p, F), the real read-out over the features: y = W f + D u."""
    parts = np if isinstance(system.C, np.ndarray) else jnp
    C = parts.moveaxis(system.C[..., :: merged(system)], 1, -1)  # (G, p, N·modes, R)
    W = system.pairing * parts.stack([C.real, -C.imag], axis=-1)
    return W.reshape(*W.shape[:2], -1)


def readout_to_C(W: Array, system: DiagonalSystem) -> Array:
    """C (G, R, p, K·modes) of a real read-out W (G, p, K·2·R·modes); the inverse of `readout_of`."""
    parts = np if isinstance(W, np.ndarray) else jnp
    blocks = W.reshape(*W.shape[:2], -1, system.directions, 2) / system.pairing
    C = parts.moveaxis(blocks[..., 0] - 1j * blocks[..., 1], -1, 1)
    return parts.repeat(C, merged(system), axis=-1)


def feature_indices(system: DiagonalSystem, kept: Array) -> np.ndarray:
    """Indices (G, K·block) into the feature axis of the kept states (sets, K)."""
    return kept_indices(kept, system.groups, block_size(system))
