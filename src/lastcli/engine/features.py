"""Real features of a diagonal layer and the read-out over them.

The refit and the elimination are linear least squares, so a complex state is two real features. One stored state owns
one contiguous block of 2·R·modes features, ordered mode, direction, (real, imaginary)::

    f = [... Re x⁺_j, Im x⁺_j, Re x⁻_j, Im x⁻_j ...]        y = W f + D u,   W = s·[Re C, -Im C]

so dropping a state is dropping a block. Where the modes of a state share one read-out, their sum is the feature and the
block has a feature for all of them. Where the format holds the real part of C only, the imaginary parts of the states
are never read and are no features.
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
    "feature_rows",
    "features_of",
    "readout_of",
    "readout_to_C",
]

Array = Any


def block_size(system: DiagonalSystem) -> int:
    """Real features of one stored state: parts·R·modes, or parts·R where the modes share a read-out."""
    return _parts(system) * system.directions * system.modes // _merged(system)


def feature_count(system: DiagonalSystem) -> int:
    """F, the real features of one group."""
    return system.states * block_size(system)


def features_of(states: Array, system: DiagonalSystem) -> Array:
    """Real features (G, n·L, F) of the complex states (n, L, R, G, N·modes) of a system."""
    if _merged(system) > 1:
        states = states.reshape(*states.shape[:-1], -1, _merged(system)).sum(axis=-1)
    by_group = jnp.transpose(states, (3, 0, 1, 4, 2))
    parts = jnp.stack([by_group.real, by_group.imag][: _parts(system)], axis=-1)
    groups, n, length = parts.shape[:3]
    return parts.reshape(groups, n * length, -1)


def feature_rows(rows: np.ndarray, system: DiagonalSystem) -> np.ndarray:
    """Rows (G, F, ...) of the features, from rows (G, R·2·N·modes, ...) ordered direction, (real, imaginary), mode."""
    width, merge = system.poles.shape[1], _merged(system)
    parts = rows.reshape(len(rows), system.directions, 2, width, *rows.shape[2:])[:, :, : _parts(system)]
    by_mode = np.moveaxis(parts, 3, 1)
    if merge > 1:
        by_mode = by_mode.reshape(len(rows), -1, merge, *by_mode.shape[2:]).sum(axis=2)
    return by_mode.reshape(len(rows), -1, *rows.shape[2:])


def readout_of(system: DiagonalSystem) -> Array:
    """W (G, p, F), the real read-out over the features: y = W f + D u."""
    xp = np if isinstance(system.C, np.ndarray) else jnp
    C = xp.moveaxis(system.C[..., :: _merged(system)], 1, -1)  # (G, p, N·modes, R)
    W = system.pairing * xp.stack([C.real, -C.imag][: _parts(system)], axis=-1)
    return W.reshape(*W.shape[:2], -1)


def readout_to_C(W: Array, system: DiagonalSystem) -> Array:
    """C (G, R, p, K·modes) of a real read-out W (G, p, K·block); the inverse of `readout_of`."""
    xp = np if isinstance(W, np.ndarray) else jnp
    blocks = W.reshape(*W.shape[:2], -1, system.directions, _parts(system)) / system.pairing
    blocks = blocks.astype(np.result_type(blocks.dtype, np.complex64))
    C = blocks[..., 0] - (0j if system.real_readout else 1j * blocks[..., 1])
    return xp.repeat(xp.moveaxis(C, -1, 1), _merged(system), axis=-1)


def feature_indices(system: DiagonalSystem, kept: Array) -> np.ndarray:
    """Indices (G, K·block) into the feature axis of the kept states (sets, K)."""
    return kept_indices(kept, system.groups, block_size(system))


def _parts(system: DiagonalSystem) -> int:
    """Features of one state: its real and its imaginary part, or the real one alone."""
    return 1 if system.real_readout else 2


def _merged(system: DiagonalSystem) -> int:
    """How many modes one feature is the sum of."""
    return system.modes if system.shared_readout else 1
