"""Certificates: how far a reduced layer can be, and is, from the original, over all inputs.

A layer of several groups is a block-diagonal system: its H-infinity norm is the largest of its groups', its H2 norm
the root of the sum of their squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lastcli.engine.embedding import pole_indices
from lastcli.engine.level_sets import certified_h_infinity
from lastcli.engine.norms import frequency_response, h2_norm
from lastcli.engine.precision import in_float64
from lastcli.engine.system import DiagonalSystem, Reduction, active_states, feedthrough_of

__all__ = ["Certificate", "a_priori_bound", "certify", "error_system", "relative_dc_error", "relative_h2_error"]


@dataclass(frozen=True)
class Certificate:
    """What is known about the error G - G_r of one layer, for every input.

    Attributes:
        hinf_error_bound: bound on the H-infinity norm of the error, known before the error is: from the removed states
            of plain truncation, from the Hankel singular values of a balanced reduction; None where the read-out was
            changed after that, then it does not hold.
        hinf_error: the H-infinity norm of the error: the largest ratio of the energies (as norms) of output error and
            input. Infinite, so not bounded, where a state with |λ| ≥ 1 was removed or changed.
        hinf_exact: whether `hinf_error` is proved to be the norm, to a share of 1e-6; otherwise it is a lower bound.
        h2_error: the H2 norm of the error (D included) relative to that of the layer without its D: the relative error,
            under white noise, of what the states say. States with |λ| ≥ 1 are not part of the norm; infinite where one
            was removed or changed.
        dc_error: ‖G(1) - G_r(1)‖ / ‖G(1)‖ (Frobenius) of the responses to constant inputs, D and states with |λ| ≥ 1
            not part of G(1); None where that has no meaning: such a state was removed or changed, or nothing of the
            layer answers to a constant.
    """

    hinf_error_bound: float | None
    hinf_error: float
    hinf_exact: bool
    h2_error: float
    dc_error: float | None


@in_float64
def certify(system: DiagonalSystem, reduction: Reduction) -> Certificate:
    """Bound and exact errors of a reduction of one layer (METHODS: modal truncation theorem; norms in closed form).

    Args:
        system: the original layer, NumPy.
        reduction: of that layer.
    """
    error = error_system(system, reduction.system)
    peak = certified_h_infinity(error)
    return Certificate(
        hinf_error_bound=a_priori_bound(system, reduction.kept) if reduction.changed == "none" else reduction.bound,
        hinf_error=peak.value,
        hinf_exact=peak.exact,
        h2_error=relative_h2_error(system, reduction.system),
        dc_error=relative_dc_error(system, reduction.system),
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
        gain = np.divide(strength, np.maximum(distance, 0), out=np.zeros(strength.shape), where=strength > 0)
    np.put_along_axis(gain, pole_indices(system, kept), 0, axis=1)
    return float(system.pairing * gain.sum(axis=1).max(initial=0.0))


def relative_h2_error(system: DiagonalSystem, reduced: DiagonalSystem) -> float:
    """‖G - G_r‖₂ / ‖G - D‖₂ of a layer in closed form, whatever poles the reduced one has.

    The error includes a change of D; the layer's own D says nothing about its states and is no part of the norm.
    States with |λ| ≥ 1 have no norm and are left out of ‖G - D‖; unchanged in the reduced layer, they leave the error
    too. Otherwise it is infinite.
    """
    norm = float(np.linalg.norm(h2_norm(_stable_states(system))))
    return _share(float(np.linalg.norm(h2_norm(error_system(system, reduced)))), norm)


def relative_dc_error(system: DiagonalSystem, reduced: DiagonalSystem) -> float | None:
    """`Certificate.dc_error` of a layer."""
    error = error_system(system, reduced)
    if (active_states(error) & (np.abs(error.poles) >= 1)).any():
        return None
    at_zero = [np.linalg.norm(frequency_response(part, np.zeros(1))) for part in (error, _stable_states(system))]
    relative = _share(*(float(value) for value in at_zero))
    return relative if np.isfinite(relative) else None


def _stable_states(system: DiagonalSystem) -> DiagonalSystem:
    """The layer without its D and its states of |λ| ≥ 1."""
    stable = np.abs(system.poles) < 1
    return system.replace(B=np.where(stable[..., None], system.B, 0), D=None)


def _share(error: float, whole: float) -> float:
    if error == 0:
        return 0.0
    return error / whole if whole > 0 else float("inf")


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
