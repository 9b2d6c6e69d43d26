"""Second moments under white noise in closed form: of a layer alone, or of a reduced layer against the original one.

The squared error of a read-out under these is the squared H2 norm of the error system. Both layers see the same noise.
For states x of one and x' of the other, E[x_i x'_j*] = (b_i·b'_j*)/(1 - λ_i λ'_j*), the Gramian of the H2 norm. The
scans of opposite directions share the present input (lag 0) only, and nothing where the output reads the state before
the update.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lastcli.engine.features import feature_rows, readout_of
from lastcli.engine.moments import Moments
from lastcli.engine.norms import joint_gramian
from lastcli.engine.system import DiagonalSystem, feedthrough_of
from lastcli.errors import InputError

__all__ = ["constant_features", "joint_moments", "white_noise_moments", "without_unstable"]

Array = Any


def white_noise_moments(
    system: DiagonalSystem, *, horizon: float | None = None, allow_unstable: bool = False
) -> Moments:
    """Moments under white-noise input of unit variance, in closed form; the target is the layer's own output.

    Args:
        system: the layer, NumPy float64.
        horizon: discount the impulse response by exp(-k/horizon), so that errors later than about that many steps
            count little: the H2 norm as a sequence of that length sees it. None: the H2 norm itself.
        allow_unstable: without a horizon, leave states with |λ| ≥ 1 out of features and target: what they say is not
            to be changed, so that it is no part of any error. A refit leaves features that never move alone.

    Raises:
        InputError: a state that the input drives has infinite variance: |λ| ≥ 1, or so large that the horizon does
            not tame it.
    """
    system = jax.tree.map(np.asarray, system)
    driven = np.abs(system.B).max(axis=2, initial=0.0) > 0
    if horizon is None and allow_unstable:
        return joint_moments(system, system)
    poles = np.where(driven, system.poles, 0) * (1.0 if horizon is None else np.exp(-1.0 / horizon))
    unstable = np.argwhere(np.abs(poles) >= 1)
    if len(unstable):
        g, n = unstable[0]
        raise InputError(
            f"State {n // system.modes} (group {g}) has |λ| = {abs(system.poles[g, n]):.6g}, at or beyond 1: its "
            "white-noise variance is infinite; calibrate on real inputs, or allow unstable states."
        )
    system = system.replace(poles=poles)
    return joint_moments(system, system)


def joint_moments(system: DiagonalSystem, reduced: DiagonalSystem, constant: np.ndarray | float = 0.0) -> Moments:
    """`Moments` of the reduced layer's features with the original layer's output as target, in closed form.

    Args:
        system: the original layer.
        reduced: a layer with the same groups, directions, inputs, outputs and delay. States with |λ| ≥ 1 are left
            out of both: where they are the same in both, they do not matter.
        constant: adds so many times the moments under constant inputs, one unit input after the other; one number
            or (G,).
    """
    alone = reduced is system
    system = without_unstable(system)
    reduced = system if alone else without_unstable(reduced)
    W, D = readout_of(system), np.asarray(feedthrough_of(system))
    lag0 = _lag0(reduced).swapaxes(1, 2)
    response = W @ _lag0(system)
    whole = _feature_gram(system, system)
    read = W @ whole
    energy = (read * W).sum(axis=2) + (2 * D * response).sum(axis=2) + (D**2).sum(axis=2)
    found = Moments(
        features=whole if alone else _feature_gram(reduced, reduced),
        input_features=lag0,
        inputs=np.broadcast_to(np.eye(system.inputs), (system.groups, system.inputs, system.inputs)),
        cross=(read if alone else W @ _feature_gram(system, reduced)) + D @ lag0,
        target_inputs=D + response,
        energy=energy,
        weight=np.array(np.inf),
    )
    weight = np.broadcast_to(np.asarray(constant, np.float64), (system.groups,))[:, None, None]
    return _with_constant(found, system, reduced, weight) if weight.any() else found


def without_unstable(system: DiagonalSystem) -> DiagonalSystem:
    """The layer with stored states of |λ| ≥ 1 made idle: they have no white-noise response of finite energy."""
    wild = (np.abs(system.poles) >= 1).reshape(system.groups, system.states, system.modes).any(axis=2)
    stable = ~np.repeat(wild, system.modes, axis=1)
    return system.replace(poles=np.where(stable, system.poles, 0), B=np.where(stable[..., None], system.B, 0))


def _with_constant(moments: Moments, system: DiagonalSystem, reduced: DiagonalSystem, weight: np.ndarray) -> Moments:
    held, gain = constant_features(reduced), readout_of(system) @ constant_features(system) + feedthrough_of(system)
    return moments.replace(
        features=moments.features + weight * held @ held.swapaxes(1, 2),
        input_features=moments.input_features + weight * held.swapaxes(1, 2),
        inputs=moments.inputs + weight * np.eye(system.inputs),
        cross=moments.cross + weight * gain @ held.swapaxes(1, 2),
        target_inputs=moments.target_inputs + weight * gain,
        energy=moments.energy + weight[..., 0] * (gain**2).sum(axis=2),
    )


def _feature_gram(one: DiagonalSystem, other: DiagonalSystem) -> np.ndarray:
    """E[f f'ᵀ] (G, F, F') over the features of all directions."""
    gram = joint_gramian(one, other)
    if one.bidirectional:
        across = np.zeros_like(gram) if one.delay else _parts(one.B) @ _parts(other.B).swapaxes(1, 2)
        gram = np.block([[gram, across], [across, gram]])
    return feature_rows(feature_rows(gram, one).swapaxes(1, 2), other).swapaxes(1, 2)


def _parts(B: np.ndarray) -> np.ndarray:
    return np.concatenate([B.real, B.imag], axis=1)


def _lag0(system: DiagonalSystem) -> np.ndarray:
    """E[f uᵀ], (G, F, m)."""
    now = _parts(system.B) * (0.0 if system.delay else 1.0)
    return feature_rows(np.concatenate([now] * system.directions, axis=1), system)


def constant_features(system: DiagonalSystem) -> np.ndarray:
    """Features under each constant unit input, long after it began: (G, F, m)."""
    held = _parts(system.B / (1 - system.poles)[..., None])
    return feature_rows(np.concatenate([held] * system.directions, axis=1), system)
