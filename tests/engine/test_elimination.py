import numpy as np
import pytest

from lastcli.engine import elimination as module
from lastcli.engine.elimination import eliminate
from lastcli.engine.moments import accumulate, empty_moments
from lastcli.engine.white_noise import white_noise_moments
from tests.engine.signals import by_group, columns, least_squares_error, plain_features
from tests.oracles import recurrence
from tests.systems import KINDS, random_system, system_of


def calibrated(system, seed=0):
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(3, 30, system.groups if system.multi else system.inputs)).cumsum(axis=1) / 5
    return u, accumulate(empty_moments(system), system, u).replace(weight=np.array(np.inf))


def least_error(system, u, kept):
    """Relative error of each set's best read-out for its kept states, by least squares over all time steps."""
    f, v, y = plain_features(system, u), by_group(system, u), by_group(system, recurrence(system, u))
    flat = lambda array: array.reshape(-1, array.shape[-1])  # noqa: E731
    errors, energies = np.zeros(system.sets), np.zeros(system.sets)
    direct = "dense" if system.inputs == 1 and system.feedthrough == "diagonal" else system.feedthrough
    for g in range(system.groups):
        state_part = flat(y[g]) - (0 if system.D is None else flat(v[g]) @ system.D[g].T)
        design = flat(f[g])[:, columns(system, kept[g % system.sets])] if kept.shape[1] else flat(f[g])[:, :0]
        error = least_squares_error(design, flat(v[g]), state_part, direct, np.ones(len(state_part)))
        errors[g % system.sets] += error.sum()
        energies[g % system.sets] += (state_part**2).mean(axis=0).sum()
    return errors, energies


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_errors_of_the_best_read_outs(kind):
    system = system_of(kind, 3)
    u, moments = calibrated(system)
    found = eliminate(system, moments)
    N = system.states
    for j in range(N):
        errors, energies = least_error(system, u, np.sort(found.order[:, j + 1 :], axis=1))
        at_step = np.take_along_axis(found.score, found.order, axis=1)[:, j]
        np.testing.assert_allclose(at_step, errors / energies, rtol=2e-2, atol=1e-5)
        assert found.layer_scores[j] == pytest.approx(errors.sum() / energies.sum(), rel=2e-2, abs=1e-5)
    np.testing.assert_array_equal(np.sort(found.order, axis=1), np.tile(np.arange(N), (system.sets, 1)))
    assert (np.diff(found.layer_scores) >= 0).all()
    share = np.take_along_axis(found.share, found.order, axis=1)
    np.testing.assert_array_equal(share, np.tile(found.layer_scores, (system.sets, 1)))


@pytest.mark.parametrize("kind", ["paired", "bidirectional", "tied"])
def test_every_step_removes_the_cheapest_state(kind):
    system = system_of(kind, 4)
    u, moments = calibrated(system)
    order = eliminate(system, moments).order
    for s in range(system.sets):
        for j in range(system.states - 1):
            left = order[s, j:]
            costs = [least_error(system, u, np.sort(left[left != q])[None])[0].sum() for q in left]
            assert costs[0] <= min(costs) * (1 + 1e-6)


@pytest.mark.parametrize("kind", ["paired", "multi"])
def test_cutting_the_arrays_down_on_the_way_changes_nothing(kind, monkeypatch):
    system = system_of(kind, 5)
    _, moments = calibrated(system)
    whole = eliminate(system, moments)
    monkeypatch.setattr(module, "_SMALLEST_STAGE", 2)
    staged = eliminate(system, moments)
    np.testing.assert_array_equal(staged.order, whole.order)
    np.testing.assert_allclose(staged.layer_scores, whole.layer_scores, rtol=1e-6)


def test_pinned_states_go_last():
    system = system_of("multi", 6)
    free = eliminate(system, white_noise_moments(system))
    pinned = np.zeros((system.sets, system.states), bool)
    np.put_along_axis(pinned, free.order[:, :2], True, axis=1)
    order = eliminate(system, white_noise_moments(system), pinned=pinned).order
    np.testing.assert_array_equal(np.sort(order[:, -2:], axis=1), np.sort(free.order[:, :2], axis=1))


def test_states_without_effect_go_first_and_cost_nothing():
    system = random_system(7, states=6)
    B, C = system.B.copy(), system.C.copy()
    B[0, 4], C[..., 1] = 0, 0
    found = eliminate(system.replace(B=B, C=C), white_noise_moments(system.replace(B=B, C=C)))
    assert set(found.order[0, :2]) == {1, 4}
    assert np.isfinite(found.score).all()
    assert found.layer_scores[1] < 1e-6


def test_a_silent_layer_has_scores_of_zero():
    system = random_system(7)
    system = system.replace(C=np.zeros_like(system.C))
    found = eliminate(system, white_noise_moments(system))
    np.testing.assert_array_equal(found.score, 0)
