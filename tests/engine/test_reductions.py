import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastcli.engine.diagonal import poles_agree
from lastcli.engine.embedding import embed
from lastcli.engine.features import readout_of
from lastcli.engine.moments import accumulate, empty_moments
from lastcli.engine.readout import ridge_of
from lastcli.engine.reductions import refit, residual, truncate
from lastcli.engine.white_noise import white_noise_moments
from lastcli.errors import InputError, UnsupportedModelError
from tests.engine.signals import by_group, columns, least_squares_error, plain_features
from tests.oracles import difference, h2_of, recurrence
from tests.systems import KINDS, random_system, system_of


def kept_of(system, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return np.sort(np.stack([rng.permutation(system.states)[:count] for _ in range(system.sets)]), axis=1)


def calibrated(system, seed=0, n=3, length=30):
    """Smooth inputs, so that features, inputs and outputs are all correlated."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(n, length, system.groups if system.multi else system.inputs)).cumsum(axis=1) / 5
    weights = rng.uniform(0.2, 1, (n, length))
    return u, weights, accumulate(empty_moments(system), system, u, weights).replace(weight=np.array(np.inf))


@pytest.mark.parametrize("kind", [*KINDS, "diagonal-dense-free"])
def test_refit_reaches_the_least_squares_error(kind):
    system = random_system(3, inputs=3, outputs=3, feedthrough="none") if kind not in KINDS else system_of(kind, 3)
    u, weights, moments = calibrated(system)
    kept = kept_of(system)
    y = by_group(system, recurrence(system, u))
    f, v = plain_features(system, u), by_group(system, u)
    flat = lambda array: array.reshape(-1, array.shape[-1])  # noqa: E731
    best, energy = 0.0, 0.0
    for g in range(system.groups):
        K = columns(system, kept[g % system.sets])
        direct = "dense" if system.inputs == 1 and system.feedthrough == "diagonal" else system.feedthrough
        state_part = flat(y[g]) - (0 if system.D is None else flat(v[g]) @ system.D[g].T)
        best += least_squares_error(flat(f[g])[:, K], flat(v[g]), state_part, direct, weights.ravel()).sum()
        energy += (state_part**2 * (weights / weights.sum()).reshape(-1, 1)).sum()
    found = residual(system, refit(system, kept, moments), moments)
    assert found == pytest.approx(best / energy, rel=1e-3)
    assert found < residual(system, truncate(system, kept), moments)


@pytest.mark.parametrize("steps", [10, 300])
def test_the_ridge_is_one_more_observation_of_every_feature(steps):
    system = random_system(5, inputs=2, outputs=2, feedthrough="none").replace(D=None)
    u = np.random.default_rng(1).normal(size=(1, steps, 2)).cumsum(axis=1) / 5
    moments = accumulate(empty_moments(system), system, u)
    kept = kept_of(system)
    f = plain_features(system, u)[0].reshape(steps, -1)[:, columns(system, kept[0])]
    y = recurrence(system, u).reshape(steps, -1)
    size = np.sqrt((f**2).mean() * (1 + 1e-7 * steps))
    rows = np.concatenate([f, size * np.eye(f.shape[1])])
    expected = np.linalg.lstsq(rows, np.concatenate([y, np.zeros((f.shape[1], 2))]), rcond=None)[0].T
    np.testing.assert_allclose(readout_of(refit(system, kept, moments).system)[0], expected, rtol=1e-6)
    exact = readout_of(refit(system, kept, moments.replace(weight=np.array(np.inf))).system)[0]
    assert np.abs(exact).sum() > np.abs(expected).sum()


def test_the_channels_of_a_layer_share_that_observation():
    system = system_of("multi", 3)
    moments = calibrated(system)[2].replace(weight=np.array(50.0))
    assert ridge_of(moments) == pytest.approx(1e-7 + 1 / (50 * system.groups), rel=1e-12)
    assert ridge_of(white_noise_moments(system)) == 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_residual_is_the_error_of_the_simulated_reduction(kind):
    system = system_of(kind, 4)
    u, weights, moments = calibrated(system)
    reduction = refit(system, kept_of(system), moments)
    error = (recurrence(system, u) - recurrence(reduction.system, u)) ** 2
    state_part = recurrence(system.replace(D=None), u) ** 2
    expected = np.einsum("nlf,nl->", error, weights) / np.einsum("nlf,nl->", state_part, weights)
    assert residual(system, reduction, moments) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_white_noise_refit_is_h2_optimal(kind):
    system = system_of(kind, 5)
    reduction = refit(system, kept_of(system), white_noise_moments(system))

    def error(C):
        return sum(h2_of(difference(system, reduction.system.replace(C=C)), g, 200) ** 2 for g in range(system.groups))

    C = reduction.system.C
    at_best = error(C)
    assert at_best < error(truncate(system, reduction.kept).system.C)
    rng = np.random.default_rng(0)
    for _ in range(2):
        move = 1e-2 * (rng.normal(size=C.shape) + (0 if system.real_readout else 1j) * rng.normal(size=C.shape))
        assert error(C + move) > at_best


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.booleans(), st.integers(1, 4))
def test_a_refit_is_never_worse_than_truncation(seed, kind, white, count):
    system = system_of(kind, seed)
    count = min(count, system.states)
    moments = white_noise_moments(system) if white else calibrated(system, seed)[2]
    kept = kept_of(system, count, seed)
    plain, refitted = (
        residual(system, truncate(system, kept), moments),
        residual(system, refit(system, kept, moments), moments),
    )
    assert refitted <= plain * (1 + 1e-9) + 1e-13


def test_keeping_all_states_changes_nothing():
    for kind in KINDS:
        system = system_of(kind, 6)
        everything = np.tile(np.arange(system.states), (system.sets, 1))
        found = refit(system, everything, white_noise_moments(system)).system
        np.testing.assert_array_equal(found.C, system.C)
        assert found.D is system.D


def test_nearly_equal_poles_survive_a_cast_to_float32():
    system = random_system(7, states=8, inputs=2, outputs=2, feedthrough="none", pairing=2)
    poles = system.poles.copy()
    poles[0, 1::2] = poles[0, ::2] * (1 - 1e-7)  # pairs that no read-out can tell apart
    system = system.replace(poles=poles)
    moments = white_noise_moments(system)
    reduction = refit(system, np.arange(6)[None], moments)
    exact = residual(system, reduction, moments)
    C = reduction.system.C.astype(np.complex64).astype(complex)
    rounded = residual(system, reduction.__class__(reduction.kept, reduction.system.replace(C=C)), moments)
    assert rounded <= exact + 1e-6
    assert np.abs(reduction.system.C).max() < 1e5


def test_dead_states_and_inputs_are_harmless():
    system = random_system(8, inputs=3, outputs=3, feedthrough="diagonal")
    B = system.B.copy()
    B[0, 1] = 0
    system = system.replace(B=B)
    rng = np.random.default_rng(0)
    u = rng.normal(size=(2, 20, 3))
    u[..., 2] = 0
    moments = accumulate(empty_moments(system), system, u)
    found = refit(system, np.array([[0, 1, 2]]), moments).system
    assert np.isfinite(found.C).all()
    assert np.isfinite(found.D).all()
    assert found.D[0, 2, 2] == system.D[0, 2, 2]


@pytest.mark.parametrize("feedthrough", ["none", "diagonal", "dense"])
def test_feedthrough_changes_only_as_far_as_the_format_holds_it(feedthrough):
    system = random_system(9, inputs=3, outputs=3, feedthrough=feedthrough)
    D = refit(system, np.array([[0, 2]]), white_noise_moments(system)).system.D
    if feedthrough == "none":
        assert D is None
        return
    change = np.abs(D - system.D)[0] > 1e-6
    np.testing.assert_array_equal(change, np.ones((3, 3)) if feedthrough == "dense" else np.eye(3))


def test_a_delayed_read_out_gives_white_noise_nothing_to_absorb():
    system = random_system(9, inputs=3, outputs=3, feedthrough="dense", delay=1)
    assert refit(system, np.array([[0, 2]]), white_noise_moments(system)).system.D is system.D


def test_diagonal_feedthrough_of_a_rectangular_layer_is_refused():
    system = random_system(9, inputs=3, outputs=2, feedthrough="none").replace(feedthrough="diagonal")
    with pytest.raises(UnsupportedModelError, match="3 inputs and 2 outputs"):
        refit(system, np.array([[0]]), white_noise_moments(system))


def test_a_reduced_layer_without_D_is_embedded_with_a_D_of_zero():
    system = random_system(9, feedthrough="dense")
    reduction = truncate(system.replace(D=None, feedthrough="none"), np.array([[1, 3]]))
    whole = embed(system, reduction)
    np.testing.assert_array_equal(whole.D, np.zeros_like(system.D))
    u = np.random.default_rng(0).normal(size=(2, 9, system.inputs))
    np.testing.assert_allclose(recurrence(whole, u), recurrence(reduction.system, u))


def test_poles_of_other_shapes_are_not_compared():
    with pytest.raises(InputError, match=r"shapes \(1, 2\) and \(1, 3\)"):
        poles_agree(np.zeros((1, 2)), np.zeros((1, 3)))


def test_a_target_without_energy_leaves_no_error():
    system = random_system(4)
    silent = system.replace(C=0 * system.C)
    moments = accumulate(empty_moments(silent), silent, np.random.default_rng(0).normal(size=(2, 20, system.inputs)))
    kept = np.array([[1, 2]])
    assert residual(silent, truncate(silent, kept), moments) == 0
    loud = truncate(system, kept)
    assert residual(system, loud, moments.replace(energy=0 * moments.energy)) == 0
