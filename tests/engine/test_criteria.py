"""State energies against norms computed from simulated impulse responses of single states."""

from __future__ import annotations

import numpy as np
import pytest

from lastcli.engine import criteria
from lastcli.engine.peaks import peak_gain, pole_grid
from lastcli.errors import InputError, UnsupportedModelError, UsageError
from tests.systems import KINDS, random_system, system_of


def responses(system, group, state, length=2000):
    """Complex impulse response of one stored state, (R, length, p, m), term by term."""
    own = slice(state * system.modes, (state + 1) * system.modes)
    powers = system.poles[group, own] ** np.arange(length)[:, None]
    return np.einsum("rcj,kj,jm->rkcm", system.C[group, :, :, own], powers, system.B[group, own])


def frequency_peak(response):
    """Largest singular value of the Fourier sum over a fine grid, zero-padded FFT."""
    spectrum = np.fft.fft(response, n=1 << 15, axis=0)
    return np.linalg.svd(spectrum, compute_uv=False)[:, 0].max()


def oracle(system, norm):
    per_group = np.zeros((system.groups, system.states))
    for g in range(system.groups):
        for n in range(system.states):
            per_group[g, n] = np.mean([norm(h) for h in responses(system, g, n)]) ** 2
    return np.stack([per_group[s :: system.sets].sum(axis=0) for s in range(system.sets)])


@pytest.mark.parametrize("kind", KINDS)
def test_hinf_is_the_squared_peak_of_the_state_alone(kind):
    system = system_of(kind, seed=11)
    np.testing.assert_allclose(criteria.hinf(system), oracle(system, frequency_peak), rtol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_h2_is_the_energy_of_the_state_alone(kind):
    system = system_of(kind, seed=12)
    np.testing.assert_allclose(criteria.h2(system), oracle(system, np.linalg.norm), rtol=1e-9)


def test_states_of_two_poles_need_not_be_rank_one():
    system = random_system(5, states=4, modes=2, inputs=3, outputs=3, directions=2)
    np.testing.assert_allclose(criteria.hinf(system), oracle(system, frequency_peak), rtol=2e-5)
    np.testing.assert_allclose(criteria.h2(system), oracle(system, np.linalg.norm), rtol=1e-9)


def test_published_code_differs_where_it_is_known_to():
    one, two = random_system(1), random_system(1, directions=2)
    b = np.linalg.norm(one.B[0], axis=1) ** 2
    distance = (1 - np.abs(one.poles[0])) ** 2 + 1e-8
    c = np.linalg.norm(one.C[0, 0], axis=0) ** 2
    np.testing.assert_allclose(criteria.hinf(one, compat=True)[0], c * b / distance, rtol=1e-12)
    c1, c2 = np.linalg.norm(two.C[0], axis=1)
    slip = (c1 + c2) / 2 ** 2  # fmt: skip
    b, distance = np.linalg.norm(two.B[0], axis=1) ** 2, 1 - np.abs(two.poles[0]) ** 2 + 1e-8
    np.testing.assert_allclose(criteria.h2(two, compat=True)[0], slip * b / distance, rtol=1e-12)


def test_magnitude_takes_the_stored_parameters():
    system = system_of("multi")
    stored = np.arange(system.stored_states, dtype=float).reshape(system.sets, -1)
    np.testing.assert_array_equal(criteria.magnitude(system, parameters=stored), stored)
    g, n = 2, 3
    own = abs(system.poles[g, n]) ** 2 + np.linalg.norm(system.B[g, n]) ** 2 + np.linalg.norm(system.C[g, ..., n]) ** 2
    assert criteria.magnitude(system)[g, n] == pytest.approx(own)


def test_random_draws_depend_on_the_seed_alone():
    system = system_of("multi")
    first, again, other = (criteria.energies(system, "random", seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_unknown_criterion_lists_the_known():
    with pytest.raises(UsageError, match="hinf"):
        criteria.energies(system_of("mimo"), "hankel")


@pytest.mark.parametrize("kind", ["mimo", "multi", "oscillators"])
def test_a_function_of_ones_own_is_a_criterion(kind):
    system = system_of(kind)

    def loud(system, *, seed):
        return seed * np.ones((system.sets, system.states))

    np.testing.assert_array_equal(
        criteria.energies(system, loud, seed=3, compat=True), 3 * np.ones_like(loud(system, seed=1))
    )
    endless = lambda system: np.full((system.sets, system.states), np.inf)  # noqa: E731
    assert np.isinf(criteria.energies(system, endless)).all()
    np.testing.assert_array_equal(criteria.energies(system, criteria.h2), criteria.energies(system, "h2"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.ones((2, 5)), r"shape \(2, 5\).*must give \(1, 5\)"),
        (np.array([[1, 1, np.nan, 1, 1]]), "nan for state 2"),
        (np.array([[1, 1, 1, 1, -2.5]]), r"-2\.5 for state 4"),
        (np.array([[1, -np.inf, 1, 1, 1]]), "-inf for state 1"),
        (None, "gives"),
        ("none", "not an array"),
    ],
)
def test_what_is_no_energy_is_refused_with_the_functions_name(value, said):
    def spoilt(system):
        return value

    with pytest.raises(UsageError, match="spoilt.*" + said):
        criteria.energies(system_of("mimo"), spoilt)


def test_what_is_no_function_is_no_criterion():
    for wrong in (3, lambda system, more: system, lambda: None):
        with pytest.raises(UsageError, match="cannot be called"):
            criteria.energies(system_of("mimo"), wrong)


def test_every_criterion_gets_just_what_it_asks_for():
    for name, known in criteria.CRITERIA.items():
        assert name == known.name
        assert criteria.Criterion.of(known.function).needs == known.needs


@pytest.mark.parametrize("kind", ["mimo", "multi", "oscillators"])
@pytest.mark.parametrize("radius", [1.0, 1.01])
def test_unstable_poles_are_refused_by_layer_and_state(kind, radius):
    good, bad = system_of(kind), system_of(kind)
    bad.poles[-1, 2] = radius * 1j
    criteria.check_stable([good], ["a"])
    state = 2 // bad.modes
    with pytest.raises(UnsupportedModelError, match=rf"Layer b: .*state {state} "):
        criteria.check_stable([good, bad], ["a", "b"])
    criteria.check_stable([good, bad], ["a", "b"], allow=True)
    masks = criteria.unstable([good, bad])
    assert not masks[0].any()
    expected = np.zeros((bad.sets, bad.states), bool)
    expected[-1, state] = True
    np.testing.assert_array_equal(masks[1], expected)
    for name in ("hinf", "h2"):
        np.testing.assert_array_equal(np.isinf(criteria.energies(bad, name)), expected)
        assert np.isfinite(criteria.energies(bad, name, compat=True)).all() or bad.modes > 1


@pytest.mark.parametrize("field", ["poles", "B", "C", "D"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_numbers_are_refused(field, value):
    system = system_of("mimo")
    getattr(system, field)[0, -1] = value
    with pytest.raises(InputError, match="Layer deep"):
        criteria.check_stable([system], ["deep"])


def test_a_dead_state_is_worth_nothing_even_on_the_circle():
    system = system_of("mimo")
    system.poles[0, 1], system.B[0, 1] = 1.0, 0.0
    assert criteria.hinf(system)[0, 1] == 0
    assert criteria.h2(system)[0, 1] == 0


def test_peak_gain_finds_a_resonance_between_grid_points():
    pole = 0.999999 * np.exp(0.1234j)
    top = peak_gain(
        lambda w: 1 / np.abs(1 - 0.5 * np.exp(-1j * w) - 0.4 * pole * np.exp(-1j * w)), pole_grid(np.array([0.5]))
    )
    fine = np.linspace(-np.pi, np.pi, 200001)
    assert top == pytest.approx((1 / np.abs(1 - (0.5 + 0.4 * pole) * np.exp(-1j * fine))).max(), rel=1e-8)
