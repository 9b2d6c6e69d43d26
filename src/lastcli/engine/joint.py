"""Moments of a reduced layer against the original one, whatever poles each has, and the read-out that fits them.

Both layers see the same white noise. For states x of one and x' of the other, E[x_i x'_j*] = (b_i·b'_j*)/(1-λ_i λ'_j*),
and the scans of opposite directions share lag 0 only (nothing with delay).
"""

from __future__ import annotations

import numpy as np

from lastcli.engine.moments import Moments
from lastcli.engine.norms import joint_gramian
from lastcli.engine.refit import refit
from lastcli.engine.system import DiagonalSystem, Reduction, feedthrough_of

__all__ = ["joint_moments", "refit_moved"]


def refit_moved(system: DiagonalSystem, reduction: Reduction, constant: np.ndarray | float = 0.0) -> Reduction:
    """The H2-optimal read-out (and D, as far as the format holds one) for a reduction with poles of its own.

    Args:
        system: the original layer, NumPy.
        reduction: any; typically one that moved the poles. States with |λ| ≥ 1 keep their read-out.
        constant: weight of constant inputs beside white noise, one number or (G,); a large one keeps the DC gain.

    Returns:
        The reduction with C and D refitted, never worse than it was in that metric.
    """
    reduced = reduction.system
    every = np.tile(np.arange(reduced.states), (reduced.sets, 1))
    fitted = refit(_without_unstable(reduced), every, joint_moments(system, reduced, constant)).system
    held = (np.abs(reduced.poles) >= 1)[:, None, None]
    changed = "readout" if reduction.changed == "none" else reduction.changed
    fitted = reduced.replace(C=np.where(held, reduced.C, fitted.C), D=fitted.D)
    return Reduction(kept=reduction.kept, system=fitted, changed=changed)


def joint_moments(system: DiagonalSystem, reduced: DiagonalSystem, constant: np.ndarray | float = 0.0) -> Moments:
    """`Moments` of the reduced layer's features with the original layer's output as target, in closed form.

    Args:
        system: the original layer.
        reduced: a layer with the same groups, directions, inputs, outputs and delay. States with |λ| ≥ 1 are left
            out of both: where they are the same in both, they do not matter.
        constant: adds so many times the moments under constant inputs, one unit input after the other; one number
            or (G,).

    """
    system, reduced = _without_unstable(system), _without_unstable(reduced)
    G, m = reduced.groups, reduced.inputs
    own, other = _feature_gram(reduced, reduced), _feature_gram(system, reduced)
    W, D = _weights(system), feedthrough_of(system)
    lag0 = _lag0(reduced)
    response = D + W @ _lag0(system)
    cross = W @ other + D @ lag0.swapaxes(1, 2)
    energy = np.einsum("gpf,gfh,gph->gp", W, _feature_gram(system, system), W)
    energy = energy + (2 * D * (response - D)).sum(axis=2) + (D**2).sum(axis=2)
    weight = np.broadcast_to(np.asarray(constant, np.float64), (G,))[:, None, None]
    held, gain = _constant(reduced), W @ _constant(system) + D
    features = own + weight * held @ held.swapaxes(1, 2)
    cross = cross + weight * gain @ held.swapaxes(1, 2)
    input_features = (lag0 + weight * held).swapaxes(1, 2)
    energy = energy + weight[..., 0] * (gain**2).sum(axis=2)
    order = _state_major(reduced)
    return Moments(
        features=features[:, order][:, :, order],
        input_features=input_features[:, :, order],
        inputs=(1 + weight) * np.eye(m),
        cross=cross[:, :, order],
        target_inputs=response + weight * gain,
        energy=energy,
        weight=np.array(np.inf),
    )


def _feature_gram(one: DiagonalSystem, other: DiagonalSystem) -> np.ndarray:
    """`joint_gramian` over the features of all directions, direction first."""
    same = joint_gramian(one, other)
    if not one.bidirectional:
        return same
    across = np.zeros_like(same) if one.delay else _parts(one.B) @ _parts(other.B).swapaxes(1, 2)
    return np.block([[same, across], [across, same]])


def _parts(B: np.ndarray) -> np.ndarray:
    return np.concatenate([B.real, B.imag], axis=1)


def _lag0(system: DiagonalSystem) -> np.ndarray:
    """E[f uᵀ], direction first: (G, F, m)."""
    now = _parts(system.B) * (0.0 if system.delay else 1.0)
    return np.concatenate([now] * system.directions, axis=1)


def _constant(system: DiagonalSystem) -> np.ndarray:
    """Features under each constant unit input, long after it began: (G, F, m)."""
    held = _parts(system.B / (1 - system.poles)[..., None])
    return np.concatenate([held] * system.directions, axis=1)


def _weights(system: DiagonalSystem) -> np.ndarray:
    """W (G, p, F) over the features, direction first."""
    C = system.pairing * system.C
    return np.concatenate([np.concatenate([c.real, -c.imag], axis=2) for c in C.swapaxes(0, 1)], axis=2)


def _state_major(system: DiagonalSystem) -> np.ndarray:
    """Where each feature, in the order of `lastcli.engine.features`, is in the direction-first order used here."""
    P = system.poles.shape[1]
    place = np.arange(system.directions * 2 * P).reshape(system.directions, 2, P)
    return np.moveaxis(place, 2, 0).ravel()


def _without_unstable(system: DiagonalSystem) -> DiagonalSystem:
    """The layer with states of |λ| ≥ 1 made idle: they have no white-noise response of finite energy."""
    stable = np.abs(system.poles) < 1
    return system.replace(poles=np.where(stable, system.poles, 0), B=np.where(stable[..., None], system.B, 0))
