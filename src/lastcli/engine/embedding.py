"""Kept states cut out of a layer, and a reduced layer put back in the original's shapes.

The latter is what masking means, and what lets one compiled program serve every ratio.

Removed slots hold a pole at zero with no input and no output, so an embedded system has exactly the reduced system's
response at the original's shapes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["as_precision", "embed", "first_slots", "kept_indices", "pole_indices", "truncate", "truncate_system"]

Array = Any


def kept_indices(kept: Array, groups: int, size: int) -> np.ndarray:
    """(G, K·size) positions of the kept states (sets, K) on an axis that has `size` entries a state.

    Group g follows set g % sets.
    """
    kept = np.asarray(kept)
    per_group = kept[np.arange(groups) % kept.shape[0]]
    return (per_group[:, :, None] * size + np.arange(size)).reshape(groups, -1)


def pole_indices(system: DiagonalSystem, kept: Array) -> np.ndarray:
    """Indices (G, K·modes) into the pole axis of the kept states (sets, K)."""
    return kept_indices(kept, system.groups, system.modes)


def truncate_system(system: DiagonalSystem, kept: Array) -> DiagonalSystem:
    """The system with the kept states (sets, K) only, everything else as it was (plain truncation)."""
    index = pole_indices(system, kept)
    return system.replace(
        poles=np.take_along_axis(np.asarray(system.poles), index, axis=1),
        B=np.take_along_axis(np.asarray(system.B), index[:, :, None], axis=1),
        C=np.take_along_axis(np.asarray(system.C), index[:, None, None, :], axis=3),
    )


def truncate(system: DiagonalSystem, kept: Array) -> Reduction:
    """Plain truncation: the kept states (sets, K) as they are; changed = "none"."""
    kept = np.asarray(kept)
    return Reduction(kept=kept, system=truncate_system(system, kept), changed="none")


def embed(original: DiagonalSystem, reduction: Reduction, states: int | None = None) -> DiagonalSystem:
    """The reduced system in the shapes of the original, kept states in their own slots.

    Args:
        original: the layer before the reduction; only its shapes count.
        reduction: what became of it; at most as many states as the original.
        states: in shapes of so many states instead, the kept ones first.
    """
    reduced = reduction.system
    kept = reduction.kept if states is None else first_slots(reduction.kept)
    where = pole_indices(original, kept)
    G, width = len(original.poles), original.modes * (original.states if states is None else states)
    rows = np.arange(G)[:, None]
    poles = np.zeros((G, width), np.complex128)
    B = np.zeros((G, width, original.inputs), np.complex128)
    C = np.zeros((G, original.directions, original.outputs, width), np.complex128)
    poles[rows, where] = reduced.poles
    B[rows, where] = reduced.B
    # advanced indices on axes 0 and 3 put the gathered axes first: (G, K, R, p)
    C[rows, :, :, where] = np.moveaxis(np.asarray(reduced.C), 3, 1)
    D = reduced.D
    if D is None and original.D is not None:
        D = np.zeros_like(original.D)
    return reduced.replace(poles=poles, B=B, C=C, D=D)


def first_slots(kept: Array) -> np.ndarray:
    """As many indices (sets, K) as are kept, from 0 on."""
    return np.broadcast_to(np.arange(np.shape(kept)[1]), np.shape(kept))


def as_precision(system: DiagonalSystem, real: Any) -> DiagonalSystem:
    """The system's arrays in the precision of the real dtype `real` (float32 → complex64)."""
    complex_type = np.result_type(np.dtype(real), np.complex64)
    return system.replace(
        poles=np.asarray(system.poles, complex_type),
        B=np.asarray(system.B, complex_type),
        C=np.asarray(system.C, complex_type),
        D=None if system.D is None else np.asarray(system.D, real),
    )
