from itertools import combinations

import numpy as np
import pytest

from lastcli.engine import criteria
from lastcli.engine import exchange as exchange_module
from lastcli.engine.elimination import eliminate
from lastcli.engine.exchange import exchange, select_states
from lastcli.engine.moments import accumulate, empty_moments
from lastcli.engine.reductions import refit, residual
from lastcli.engine.white_noise import white_noise_moments
from tests.engine.signals import plain_features
from tests.oracles import recurrence
from tests.systems import KINDS, random_system, system_of


def calibrated(system, seed=0):
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(3, 30, system.groups if system.multi else system.inputs)).cumsum(axis=1) / 5
    return accumulate(empty_moments(system), system, u).replace(weight=np.array(np.inf))


def left_by(system, kept, moments):
    kept = np.sort(np.atleast_2d(kept), axis=1)
    return residual(system, refit(system, kept, moments), moments)


@pytest.mark.parametrize("kind", KINDS)
def test_no_single_swap_is_left_that_helps(kind):
    system = system_of(kind, 3)
    moments = calibrated(system)
    worst = np.sort(eliminate(system, moments).order[:, :2], axis=1)
    found = exchange(system, worst, moments)
    reached = left_by(system, found, moments)
    assert reached < left_by(system, worst, moments)
    for s in range(system.sets):
        for i in range(found.shape[1]):
            for state in set(range(system.states)) - set(found[s]):
                other = found.copy()
                other[s, i] = state
                assert left_by(system, other, moments) >= reached * (1 - 1.1e-3) - 1e-7


def test_after_the_last_swap_allowed_what_was_found_is_given(monkeypatch):
    system = system_of("mimo", 3)
    moments = calibrated(system)
    worst = np.sort(eliminate(system, moments).order[:, :2], axis=1)
    monkeypatch.setattr(exchange_module, "_MOST_SWAPS", 1)
    found = exchange(system, worst, moments)
    assert len(set(found[0]) & set(worst[0])) == 1
    assert left_by(system, found, moments) < left_by(system, worst, moments)


def test_sets_are_exchanged_independently():
    system = system_of("multi", 4)
    moments = calibrated(system)
    together = exchange(system, np.tile([0, 1], (system.sets, 1)), moments)
    for g in range(system.groups):
        D = system.D[g : g + 1]
        one = system.replace(poles=system.poles[g : g + 1], B=system.B[g : g + 1], C=system.C[g : g + 1], D=D, sets=1)
        fields = {name: getattr(moments, name)[g : g + 1] for name in vars(moments) if name != "weight"}
        np.testing.assert_array_equal(exchange(one, np.array([[0, 1]]), moments.replace(**fields))[0], together[g])


@pytest.mark.parametrize("kind", ["mimo", "multi", "tied", "bidirectional-real"])
def test_pinned_states_stay(kind):
    system = system_of(kind, 5)
    moments = calibrated(system)
    order = eliminate(system, moments).order
    pinned = np.zeros((system.sets, system.states), bool)
    np.put_along_axis(pinned, order[:, :1], True, axis=1)
    for kept in (
        exchange(system, np.sort(order[:, :2], axis=1), moments, pinned=pinned),
        select_states(system, moments, 2, pinned=pinned),
    ):
        assert (kept == order[:, :1]).any(axis=1).all()
    assert not (select_states(system, moments, 2) == order[:, :1]).any(axis=1).all()


def test_nothing_to_exchange():
    system = system_of("mimo", 5)
    everything = np.arange(system.states)[None]
    np.testing.assert_array_equal(exchange(system, everything, white_noise_moments(system)), everything)


def test_selection_comes_close_to_the_best_subset_and_beats_every_ranking():
    N, K, trials = 8, 4, 40
    ratios: dict[str, list[float]] = {"obs": [], "hinf": [], "h2": []}
    for seed in range(trials):
        system = random_system(seed, states=N, inputs=2, outputs=2, pairing=2, radius=(0.6, 0.99), feedthrough="none")
        moments = white_noise_moments(system)
        best = min(left_by(system, np.array(subset), moments) for subset in combinations(range(N), K))
        ratios["obs"].append(left_by(system, select_states(system, moments, K), moments) / best)
        for name in ("hinf", "h2"):
            energy = criteria.energies(system, name)[0]
            ratios[name].append(left_by(system, np.argsort(energy)[N - K :], moments) / best)
    assert np.mean(np.array(ratios["obs"]) <= 1.05) >= 0.9
    assert np.median(ratios["obs"]) < min(np.median(ratios["hinf"]), np.median(ratios["h2"]))


def test_a_real_read_out_is_chosen_and_fitted_as_one():
    N, K = 7, 3
    for seed in range(6):
        system = random_system(seed, states=N, inputs=2, outputs=2, pairing=2, feedthrough="none", real_readout=True)
        rng = np.random.default_rng(seed)
        u = rng.normal(size=(4, 60, 2)).cumsum(axis=1) / 5
        f, y = plain_features(system, u)[0].reshape(-1, N), recurrence(system, u).reshape(-1, 2)

        def error(subset, f=f, y=y):
            C = np.linalg.lstsq(f[:, subset], y, rcond=None)[0]
            return ((y - f[:, subset] @ C) ** 2).sum(), C.T / 2

        best = min(error(list(subset))[0] for subset in combinations(range(N), K))
        moments = accumulate(empty_moments(system), system, u).replace(weight=np.array(np.inf))
        kept = select_states(system, moments, K)
        found = refit(system, kept, moments).system
        reached, C = error(kept[0])
        assert reached <= 1.05 * best
        np.testing.assert_allclose(found.C[0, 0], C, rtol=1e-3, atol=1e-4)
        assert ((y - recurrence(found, u).reshape(-1, 2)) ** 2).sum() <= reached * (1 + 1e-3)
