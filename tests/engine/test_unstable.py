"""Layers with states of |λ| ≥ 1: kept as they are through everything, numbers or infinity everywhere, never NaN."""

from __future__ import annotations

import numpy as np
import pytest

from lastcli.engine.certificates import certify
from lastcli.engine.criteria import unstable
from lastcli.engine.elimination import eliminate
from lastcli.engine.exchange import exchange
from lastcli.engine.features import readout_of
from lastcli.engine.moments import accumulate, empty_moments
from lastcli.engine.norms import h2_norm
from lastcli.engine.reductions import refit, refit_moved, residual, truncate
from lastcli.engine.state_norms import h2, horizon_energy
from lastcli.engine.white_noise import white_noise_moments
from tests import oracles
from tests.systems import KINDS, system_of

pytestmark = pytest.mark.filterwarnings("error:invalid value")


def with_unstable(kind, radius=1.0005, seed=71):
    """The system with its second stored state on or outside the circle, in every group."""
    system = system_of(kind, seed)
    own = slice(system.modes, 2 * system.modes)
    poles = system.poles.copy()
    # on the imaginary axis, so that |λ| is the radius to the last bit
    poles[:, own] = radius * 1j * np.where(poles[:, own].imag >= 0, 1, -1)
    if kind == "multi":  # one channel only
        poles[1:] = system.poles[1:]
    return system.replace(poles=poles)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("radius", [1.0, 1.0005, 1.3])
def test_h2_elimination_exchange_and_refit_keep_them_and_certify_the_rest(kind, radius):
    system = with_unstable(kind, radius)
    pinned = unstable([system])[0]
    moments = white_noise_moments(system, allow_unstable=True)
    found = eliminate(system, moments, pinned=pinned)
    assert np.isfinite(found.score).all()
    kept = exchange(system, np.sort(found.order[:, 2:], axis=1), moments, pinned=pinned)
    reduction = refit(system, kept, moments)
    for s in range(system.sets):
        assert set(np.flatnonzero(pinned[s])) <= set(kept[s])
    wild = np.abs(reduction.system.poles) >= 1
    assert wild.sum() == (np.abs(system.poles) >= 1).sum()
    plain = truncate(system, kept)
    for g, i in np.argwhere(wild):
        np.testing.assert_allclose(reduction.system.C[g, :, :, i], plain.system.C[g, :, :, i], rtol=1e-14)
    certificate = certify(system, reduction)
    assert np.isfinite([certificate.hinf_error, certificate.h2_error, certificate.dc_error]).all()
    assert certificate.h2_error <= certify(system, plain).h2_error * (1 + 1e-9)
    assert certificate.h2_error**2 == pytest.approx(residual(system, reduction, moments), rel=1e-6)


def test_the_h2_refit_is_that_of_the_layer_without_them():
    system = with_unstable("mimo")
    reduced = refit(system, np.array([[0, 1, 3]]), white_noise_moments(system, allow_unstable=True)).system
    rest = system.replace(poles=np.delete(system.poles, 1, 1), B=np.delete(system.B, 1, 1), C=np.delete(system.C, 1, 3))
    alone = refit(rest, np.array([[0, 2]]), white_noise_moments(rest)).system
    # to the ridge, which is relative to the mean over all features
    np.testing.assert_allclose(np.delete(reduced.C, 1, 3), alone.C, rtol=1e-4)
    np.testing.assert_allclose(reduced.D, alone.D, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_of_what_cannot_be_bounded_are_infinite(kind):
    system = with_unstable(kind)
    kept = np.tile(np.arange(3), (system.sets, 1))
    reduction = truncate(system, kept)
    loud = reduction.__class__(kept, reduction.system.replace(C=1.01 * reduction.system.C), "readout")
    gone = truncate(system, np.tile([0, 2], (system.sets, 1)))
    for case in (loud, gone):
        certificate = certify(system, case)
        assert (certificate.hinf_error, certificate.h2_error, certificate.dc_error) == (np.inf, np.inf, None)
    assert certify(system, gone).hinf_error_bound == np.inf
    assert np.isfinite(certify(system, reduction).hinf_error_bound)


@pytest.mark.parametrize("kind", KINDS)
def test_calibrated_moments_of_unstable_states_are_numbers(kind):
    system = with_unstable(kind)
    u = np.random.default_rng(0).normal(size=(2, 25, system.groups if system.multi else system.inputs))
    moments = accumulate(empty_moments(system), system, u)
    found = eliminate(system, moments, pinned=unstable([system])[0])
    assert np.isfinite(found.score).all()
    reduction = refit(system, np.sort(found.order[:, 2:], axis=1), moments)
    assert np.isfinite(reduction.system.C).all()
    certificate = certify(system, reduction)
    assert not np.isnan([certificate.hinf_error, certificate.h2_error]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_refits_of_moved_poles_leave_them_alone(kind):
    system = with_unstable(kind)
    reduction = truncate(system, np.tile(np.arange(3), (system.sets, 1)))
    fitted = refit_moved(system, reduction)
    wild = np.abs(fitted.system.poles) >= 1
    for g, i in np.argwhere(wild):
        np.testing.assert_array_equal(fitted.system.C[g, :, :, i], system.C[g, :, :, i])
    assert np.isfinite(certify(system, fitted).h2_error)
    assert np.isfinite(readout_of(fitted.system)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_energies_over_a_horizon_are_sums_of_simulated_steps(kind, steps):
    system = with_unstable(kind, 1.02)
    found = horizon_energy(system, steps)
    expected = np.zeros((system.sets, system.states))
    for g in range(system.groups):
        for n in range(system.states):
            own = slice(n * system.modes, (n + 1) * system.modes)
            powers = system.poles[g, own] ** np.arange(steps)[:, None]
            response = np.einsum("rpi,ki,im->rkpm", system.C[g][:, :, own], powers, system.B[g, own])
            norms = np.sqrt((np.abs(response) ** 2).sum(axis=(1, 2, 3)))
            expected[g % system.sets, n] += norms.mean() ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_energies_over_a_long_horizon_are_the_h2_energies():
    for kind in KINDS:
        np.testing.assert_allclose(horizon_energy(system_of(kind), 5000), h2(system_of(kind)), rtol=1e-9)


def test_what_overflows_is_infinite_and_what_does_nothing_is_zero():
    system = with_unstable("mimo", 3.0)
    assert horizon_energy(system, 10**5)[0, 1] == np.inf
    idle = system.replace(B=np.where(np.arange(5)[:, None] == 1, 0, system.B))
    assert horizon_energy(idle, 10**5)[0, 1] == 0
    near = with_unstable("mimo", 1 - 1e-12)
    b, c = np.linalg.norm(near.B[0, 1]), np.linalg.norm(near.C[0, 0, :, 1])
    assert horizon_energy(near, 1000)[0, 1] == pytest.approx(1000 * b**2 * c**2, rel=1e-6)


def test_norms_without_them_are_those_of_the_impulse_response():
    system = with_unstable("mimo")
    assert np.isinf(h2_norm(system)).all()
    kept = truncate(system, np.array([[0, 1]]))
    gone = truncate(system, np.array([[2, 3, 4]])).system.replace(D=None)
    rest = truncate(system, np.array([[0, 2, 3, 4]])).system.replace(D=None)
    expected = oracles.h2_of(gone, length=900) / oracles.h2_of(rest, length=900)
    assert certify(system, kept).h2_error == pytest.approx(expected, rel=1e-8)
