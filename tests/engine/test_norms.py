"""Norms against dense Lyapunov solves, long impulse responses, fine frequency grids and python-control."""

from __future__ import annotations

import control
import numpy as np
import pytest

from lastcli.engine import norms
from lastcli.engine.peaks import peak_gain, pole_grid
from lastcli.engine.system import DiagonalSystem
from tests import oracles
from tests.systems import KINDS, embed, random_system, system_of

FORWARD = [kind for kind in KINDS if "bidirectional" not in kind]


@pytest.mark.parametrize("kind", KINDS)
def test_frequency_response_is_the_fourier_sum(kind):
    system = system_of(kind, seed=1)
    omega = np.linspace(-np.pi, np.pi, 25)
    for g, response in enumerate(norms.frequency_response(system, omega)):
        np.testing.assert_allclose(response, oracles.transfer(system, omega, g, 900), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_D", [True, False])
def test_h2_norm_is_the_energy_of_the_impulse_response(kind, with_D):
    system = system_of(kind, seed=2)
    if not with_D:
        system = system.replace(D=None)
    expected = [oracles.h2_of(system, g, 900) for g in range(system.groups)]
    np.testing.assert_allclose(norms.h2_norm(system), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", FORWARD)
def test_h2_norm_is_that_of_the_dense_system(kind):
    system = system_of(kind, seed=3)
    found = norms.h2_norm(system)
    for g in range(system.groups):
        assert found[g] == pytest.approx(oracles.h2_lyapunov(system, g), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_h_infinity_norm_is_the_top_of_a_fine_grid(kind):
    system = system_of(kind, seed=4)
    found = norms.h_infinity_norm(system)
    for g in range(system.groups):
        grid = oracles.h_infinity_of(system, g)
        assert grid * (1 - 1e-9) <= found[g] <= grid * (1 + 1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_norms_agree_with_python_control(seed):
    system = random_system(seed, states=6, inputs=2, outputs=2, pairing=2, radius=(0.6, 0.98))
    A, B, C, D = oracles.dense(system)
    reference = control.ss(A, B, C, D, True)
    infinity = control.system_norm(reference, "inf", tol=1e-9, method="scipy")
    assert norms.h_infinity_norm(system)[0] == pytest.approx(infinity, rel=1e-6)
    assert norms.h2_norm(system)[0] == pytest.approx(control.system_norm(reference, 2, method="scipy"), rel=1e-6)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("sizes", [{"inputs": 7, "outputs": 6}, {"inputs": 30, "outputs": 24}])
def test_iterated_norm_is_the_exact_one(monkeypatch, sizes, directions):
    system = random_system(6, states=9, directions=directions, pairing=2, radius=(0.5, 0.99), **sizes)
    monkeypatch.setattr(norms, "_EXACT_SIZE", 99)
    exact = norms.h_infinity_norm(system)
    monkeypatch.setattr(norms, "_EXACT_SIZE", 0)
    np.testing.assert_allclose(norms.h_infinity_norm(system), exact, rtol=1e-7)


def test_a_sharp_resonance_is_not_missed():
    system = random_system(7, states=3, inputs=2, outputs=2, radius=(0.3, 0.5))
    system.poles[0, 1] = (1 - 1e-7) * np.exp(1.2345j)
    alone = np.linalg.norm(system.C[0, 0, :, 1]) * np.linalg.norm(system.B[0, 1]) / 1e-7 / 2
    assert norms.h_infinity_norm(system)[0] == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("kind", FORWARD)
def test_hankel_singular_values_are_those_of_the_dense_system(kind):
    system = system_of(kind, seed=8)
    found = norms.hankel_singular_values(system)
    for g in range(system.groups):
        expected = oracles.hankel_of(system, g)
        np.testing.assert_allclose(found[g], expected, rtol=1e-6, atol=1e-7 * expected[0])


@pytest.mark.parametrize("kind", ["mimo", "bidirectional", "multi", "oscillators"])
def test_gramians_are_sums_over_simulated_steps(kind):
    system = system_of(kind, seed=10)
    controllability, observability = norms.gramians(system)
    for g in range(system.groups):
        poles, B, P = system.poles[g], system.B[g], system.poles.shape[1]
        C = system.C[g].reshape(-1, P)
        reach, seen = np.zeros((2 * P, 2 * P)), np.zeros((2 * P, 2 * P))
        for k in range(900):
            b, c = poles[:, None] ** k * B, poles**k * C
            x = np.vstack([b.real, b.imag])
            w = system.pairing * np.hstack([c.real, -c.imag])
            reach += x @ x.T
            seen += w.T @ w
        np.testing.assert_allclose(controllability[g], reach, rtol=0, atol=1e-9 * np.abs(reach).max())
        np.testing.assert_allclose(observability[g], seen, rtol=0, atol=1e-9 * np.abs(seen).max())


def test_masked_states_change_nothing():
    small = system_of("bidirectional")
    masked = embed(small, 9, np.array([0, 2, 3, 5, 7]))
    masked.poles[0, 1] = 1.5  # neither driven nor read
    np.testing.assert_allclose(norms.h2_norm(masked), norms.h2_norm(small), rtol=1e-12)
    np.testing.assert_allclose(norms.h_infinity_norm(masked), norms.h_infinity_norm(small), rtol=1e-12)


@pytest.mark.parametrize("kind", ["mimo", "multi"])
def test_unstable_groups_have_no_finite_norm(kind):
    system = system_of(kind)
    system.poles[-1, 2] = 1j
    for norm in (norms.h2_norm(system), norms.h_infinity_norm(system)):
        assert np.isinf(norm[-1])
        assert np.isfinite(norm[:-1]).all()


def test_states_that_nothing_drives_or_nothing_reads_are_inert():
    from lastcli.engine.engines import engine_of

    system = system_of("mimo", 7)
    B, C = system.B.copy(), system.C.copy()
    B[:, 1] = 0
    C[..., 3] = 0
    B[:, 2] = 1
    C[..., 2] = 1
    expected = np.isin(np.arange(system.states), [1, 3])
    for row in engine_of(system).inert(system.replace(B=B, C=C)):
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize(("states", "bidirectional"), [(4, False), (4, True), (20, True)])
def test_the_peak_of_a_wide_layer_without_D_is_that_of_its_response(states, bidirectional):
    rng = np.random.default_rng(states)

    def values(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    poles = np.exp(-rng.uniform(0.02, 0.2, (1, states)) + 1j * rng.uniform(0, 3, (1, states)))
    C = values(1, 2 if bidirectional else 1, 14, states)
    system = DiagonalSystem(poles=poles, B=values(1, states, 12), C=C, D=None, pairing=2)
    response = norms.frequency_response(system, np.linspace(0, np.pi, 20_001))[0]
    highest = np.linalg.norm(response, ord=2, axis=(1, 2)).max()
    assert norms.h_infinity_norm(system)[0] == pytest.approx(highest, rel=1e-4)


@pytest.mark.parametrize("feedthrough", ["none", "full", "diagonal"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_peak_that_is_climbed_is_that_of_the_decomposed_response(seed, directions, feedthrough):
    system = random_system(
        seed,
        states=30,
        inputs=12,
        outputs=12 if feedthrough == "diagonal" else 10,
        pairing=2,
        directions=directions,
        feedthrough=feedthrough,
    )
    rng = np.random.default_rng(seed)
    distance, angle = 10 ** rng.uniform(-3, -0.7, system.poles.shape), rng.uniform(0, 3.1, system.poles.shape)
    system = system.replace(poles=np.exp(-distance + 1j * angle))
    grid = pole_grid(system.poles[0], real=True)

    def gain(omega):
        return np.linalg.svd(norms.frequency_response(system, omega)[0], compute_uv=False)[:, 0]

    expected = peak_gain(gain, grid, 5)
    found = norms.h_infinity_norm(system)[0]
    assert found == pytest.approx(expected, rel=1e-7)
    assert found <= expected * (1 + 1e-9)


@pytest.mark.parametrize("power", [-25, -10, 12, 25])
def test_a_peak_that_is_climbed_does_not_depend_on_the_unit(power):
    """Directions are found in single precision, whose numbers end at 1e38: gains here reach 1e56."""
    system = random_system(1, states=30, inputs=12, outputs=12, pairing=2, directions=2, feedthrough="diagonal")
    system = system.replace(poles=system.poles / np.abs(system.poles) * (1 - 1e-6))
    unit = 10.0**power
    larger = system.replace(B=system.B * unit, C=system.C * unit, D=system.D * unit**2)
    expected = norms.h_infinity_norm(system)[0] * unit**2
    assert norms.h_infinity_norm(larger)[0] == pytest.approx(expected, rel=1e-9)
