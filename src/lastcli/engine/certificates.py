"""Certificates: how far a reduced layer can be, and is, from the original, over all inputs.

A layer of several groups is a block-diagonal system: its H-infinity norm is the largest of its groups', its H2 norm
the root of the sum of their squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lastcli.engine.embedding import pole_indices
from lastcli.engine.norms import h2_norm, h_infinity_norm
from lastcli.engine.precision import in_float64
from lastcli.engine.system import DiagonalSystem, Reduction, feedthrough_of

__all__ = ["Certificate", "a_priori_bound", "certify", "error_system", "relative_h2_error"]


@dataclass(frozen=True)
class Certificate:
    """What is known about the error G - G_r of one layer, for every input.

    Attributes:
        hinf_error_bound: bound on the H-infinity norm of the error from the removed states alone, known before
            anything is computed; None where the kept states were changed, then it does not hold.
        hinf_error: the H-infinity norm of the error: the largest ratio of the energies (as norms) of output error and
            input.
        h2_error: the H2 norm of the error relative to that of the layer (D included, states with |λ| ≥ 1 not): the
            relative output error under white noise.
    """

    hinf_error_bound: float | None
    hinf_error: float
    h2_error: float


@in_float64
def certify(system: DiagonalSystem, reduction: Reduction) -> Certificate:
    """Bound and exact errors of a reduction of one layer (METHODS: modal truncation theorem; norms in closed form).

    Args:
        system: the original layer, NumPy.
        reduction: of that layer.
    """
    error = error_system(system, reduction.system)
    return Certificate(
        hinf_error_bound=a_priori_bound(system, reduction.kept) if reduction.changed == "none" else None,
        hinf_error=float(h_infinity_norm(error).max(initial=0.0)),
        h2_error=relative_h2_error(system, reduction.system),
    )


def a_priori_bound(system: DiagonalSystem, kept: np.ndarray) -> float:
    """s·Σ ‖c_i‖‖b_i‖/(1-|λ_i|) over the removed states, both directions added; the largest over the groups.

    Bounds the H-infinity norm of the error of plain truncation. Infinite where a removed state that does something
    has |λ| ≥ 1.

    Args:
        system: the original layer.
        kept: (sets, K) indices of the kept states.
    """
    b = np.linalg.norm(system.B, axis=2)
    c = np.linalg.norm(system.C, axis=2).sum(axis=1)
    distance = 1 - np.abs(system.poles)
    strength = b * c
    with np.errstate(divide="ignore"):
        gain = np.where(strength > 0, strength / np.maximum(distance, 0), 0)
    np.put_along_axis(gain, pole_indices(system, kept), 0, axis=1)
    return float(system.pairing * gain.sum(axis=1).max(initial=0.0))


def relative_h2_error(system: DiagonalSystem, reduced: DiagonalSystem) -> float:
    """‖G - G_r‖₂ / ‖G‖₂ of a layer in closed form, whatever poles the reduced one has.

    States with |λ| ≥ 1 have no norm and are left out of ‖G‖; unchanged in the reduced layer, they leave the error too.
    """
    stable = np.abs(system.poles) < 1
    norm = float(np.linalg.norm(h2_norm(system.replace(B=np.where(stable[..., None], system.B, 0)))))
    error = float(np.linalg.norm(h2_norm(error_system(system, reduced))))
    if error == 0:
        return 0.0
    return error / norm if norm > 0 else float("inf")


def error_system(system: DiagonalSystem, reduced: DiagonalSystem) -> DiagonalSystem:
    """A layer whose response is the original's minus the reduced one's, D included.

    Where a reduced state has the pole and B of an original one, the read-outs are subtracted pole by pole, so that
    nothing cancels between nearly equal terms and kept states on the unit circle drop out.

    Args:
        system: the original layer.
        reduced: the reduced layer; same groups, directions, inputs, outputs and delay.
    """
    direct = np.asarray(feedthrough_of(system)) - np.asarray(feedthrough_of(reduced))
    C, read_out = system.C.copy(), reduced.pairing / system.pairing * reduced.C
    moved = reduced.B.copy()
    for g, i, j in np.argwhere(system.poles[:, :, None] == reduced.poles[:, None, :]):
        if moved[g, j].any() and np.array_equal(system.B[g, i], moved[g, j]):
            C[g, :, :, i] -= read_out[g, :, :, j]
            moved[g, j] = 0
    error = system.replace(C=C, D=direct if direct.any() else None)
    if not moved.any():
        return error
    return error.replace(
        poles=np.concatenate([system.poles, reduced.poles], axis=1),
        B=np.concatenate([system.B, moved], axis=1),
        C=np.concatenate([C, -read_out], axis=3),
    )
