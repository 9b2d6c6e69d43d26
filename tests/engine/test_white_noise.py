"""Closed-form moments against sums over the impulse response."""

from __future__ import annotations

import numpy as np
import pytest

from lastcli.engine.white_noise import joint_moments, white_noise_moments
from lastcli.errors import InputError
from tests.engine.signals import by_group, plain_features
from tests.oracles import h2_of, recurrence
from tests.systems import KINDS, random_system, system_of


@pytest.mark.parametrize("kind", KINDS)
def test_white_noise_moments_are_sums_over_the_impulse_response(kind):
    system = system_of(kind, 1).replace(poles=0.7 * system_of(kind, 1).poles)
    found = white_noise_moments(system)
    middle = 60
    M = np.zeros_like(found.features)
    lag0 = np.zeros_like(found.input_features)
    for j in range(system.inputs):
        u = np.zeros((1, 2 * middle + 1, system.groups if system.multi else system.inputs))
        u[0, middle, :] = 1.0 if system.multi else np.eye(system.inputs)[j]
        f = plain_features(system, u)[:, 0]
        M += np.swapaxes(f, 1, 2) @ f
        lag0[:, j] = f[:, middle]
    np.testing.assert_allclose(found.features, M, atol=1e-9)
    np.testing.assert_allclose(found.input_features, lag0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_white_noise_energy_is_the_squared_h2_norm(kind):
    system = system_of(kind, 2)
    energy = white_noise_moments(system).energy.sum(axis=1)
    expected = [h2_of(system, g) ** 2 for g in range(system.groups)]
    np.testing.assert_allclose(energy, expected, rtol=1e-8)


def test_horizon_discounts_the_impulse_response():
    system = random_system(3)
    faded = white_noise_moments(system, horizon=10.0)
    expected = white_noise_moments(system.replace(poles=system.poles * np.exp(-0.1)))
    np.testing.assert_allclose(faded.features, expected.features, rtol=1e-12)


def test_unstable_state_is_named_and_can_be_allowed():
    system = random_system(3)
    poles = system.poles.copy()
    poles[0, 2] = 1.0005j
    system = system.replace(poles=poles)
    with pytest.raises(InputError, match=r"State 2 .*1\.0005"):
        white_noise_moments(system)
    assert np.isfinite(white_noise_moments(system, allow_unstable=True).features).all()
    far = white_noise_moments(system.replace(poles=poles * [1, 1, 2, 1, 1]), allow_unstable=True)
    np.testing.assert_array_equal(far.features, white_noise_moments(system, allow_unstable=True).features)


def test_unstable_state_without_input_is_no_obstacle():
    system = random_system(3)
    poles, B = system.poles.copy(), system.B.copy()
    poles[0, 2], B[0, 2] = 1.5, 0
    assert np.isfinite(white_noise_moments(system.replace(poles=poles, B=B)).features).all()


@pytest.mark.parametrize("kind", KINDS)
def test_moments_of_another_layer_are_those_of_both_impulse_responses(kind):
    system, other = (system_of(kind, seed).replace(poles=0.7 * system_of(kind, seed).poles) for seed in (1, 2))
    other = other.replace(poles=other.poles[:, : 2 * other.modes], B=other.B[:, : 2 * other.modes])
    other = other.replace(C=other.C[..., : 2 * other.modes])
    found = joint_moments(system, other)
    middle = 60
    cross, energy = np.zeros_like(found.cross), np.zeros_like(found.energy)
    for j in range(system.inputs):
        u = np.zeros((1, 2 * middle + 1, system.groups if system.multi else system.inputs))
        u[0, middle, :] = 1.0 if system.multi else np.eye(system.inputs)[j]
        f, y = plain_features(other, u)[:, 0], by_group(system, recurrence(system, u))[:, 0]
        cross += np.swapaxes(y, 1, 2) @ f
        energy += (y**2).sum(axis=1)
    np.testing.assert_allclose(found.cross, cross, atol=1e-9)
    np.testing.assert_allclose(found.energy, energy, atol=1e-9)
