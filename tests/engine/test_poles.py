import jax
import numpy as np
import pytest

from lastcli.engine import poles, poles_linearised, readout, signals
from lastcli.engine.moments import accumulate, empty_moments
from lastcli.engine.pole_variables import anchor_of
from lastcli.engine.poles import refit_poles
from lastcli.engine.poles_linearised import linearise
from lastcli.engine.reductions import refit, truncate
from lastcli.engine.signals import divide_signals, load_signals, with_ridge
from lastcli.engine.system import feedthrough_of
from lastcli.errors import InputError, UnsupportedModelError
from tests.oracles import recurrence
from tests.systems import oscillators, system_of


def signals_of(system, target=None, *, n=16, length=24, seed=0):
    """(u, target, weights) of one batch; the target is the system's own output unless given another system."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(n, length, system.groups if system.multi else system.inputs))
    return u, recurrence(target or system, u), np.ones((n, length))


def error(system, data):
    u, target, weights = data
    return (((recurrence(system, u) - target) ** 2).sum(axis=2) * weights).sum() / (target**2).sum()


def start_of(system, kept, data):
    u, target, weights = data
    return refit(system, kept, accumulate(empty_moments(system), system, u, weights, target))


def disturbed(system, seed=0):
    """The same system with other poles, B and C."""
    rng = np.random.default_rng(seed)
    shift = np.exp(0.05 * rng.normal(size=system.poles.shape) * 1j) * rng.uniform(0.9, 1.02, system.poles.shape)
    moved = system.poles * shift
    moved = moved / np.maximum(np.abs(moved) / 0.97, 1)
    B = system.B + 0.2 * rng.normal(size=system.B.shape)
    return system.replace(poles=moved, B=system.B if system.multi else B)


@pytest.mark.parametrize("kind", ["mimo", "bidirectional", "delay", "multi", "tied"])
def test_disturbed_poles_and_inputs_are_found_again(kind):
    system = system_of(kind, 3)
    start = disturbed(system)
    if kind == "tied":
        start = start.replace(poles=np.repeat(start.poles[:1], start.groups, axis=0))
    u, target, weights = signals_of(system)
    before = truncate(start, np.tile(np.arange(system.states), (system.sets, 1)))
    # Seen often, so that the ridge, which is for short data, is out of the way.
    found = refit_poles(system, before, [(u, target, 1e6 * weights)], steps=150)
    assert found.changed == "all"
    fresh = signals_of(system, seed=9)
    assert error(found.system, fresh) < 0.01 * error(start, fresh)
    assert (np.abs(found.system.poles) < 1).all()
    if kind == "tied":
        assert (found.system.poles == found.system.poles[:1]).all()
    if system.feedthrough == "none":
        assert found.system.D is None


@pytest.mark.parametrize("kind", ["paired", "multi"])
def test_a_reduced_layer_gets_better_on_data_it_has_not_seen(kind):
    system = system_of(kind, 4)
    data = signals_of(system)
    start = start_of(system, np.tile([0, 2, 3], (system.sets, 1)), data)
    found = refit_poles(system, start, [data], steps=40)
    fresh = signals_of(system, seed=9)
    assert error(found.system, fresh) < 0.95 * error(start.system, fresh)
    assert error(found.system, data) < error(start.system, data)
    np.testing.assert_array_equal(found.kept, start.kept)


@pytest.mark.parametrize("seed", range(4))
def test_never_worse_than_the_start(seed):
    system, other = system_of("paired", seed), system_of("paired", seed + 50)
    data = signals_of(system, other, seed=seed)
    start = truncate(system, np.array([[1, 2, 4]]))
    assert error(refit_poles(system, start, [data], steps=3).system, data) <= error(start.system, data)


def test_a_perfect_start_is_given_back():
    system = system_of("paired", 5)
    system = truncate(system, np.array([[0, 2, 3]])).system
    found = refit_poles(system, truncate(system, np.arange(3)[None]), [signals_of(system)], steps=5)
    assert error(found.system, signals_of(system)) < 1e-20


@pytest.mark.parametrize("kind", ["paired", "multi", "bidirectional"])
def test_the_read_out_has_the_ridge_of_a_calibrated_refit(kind):
    system = system_of(kind, 6)
    data = signals_of(system, n=2)
    start = start_of(system, np.tile([0, 2, 4], (system.sets, 1)), data).system
    # On no more than two short sequences the ridge is felt; white noise has none.
    free = start_of(system, np.tile([0, 2, 4], (system.sets, 1)), (*data[:2], 1e9 * data[2])).system
    with jax.enable_x64(True):
        loaded = with_ridge(load_signals(start, [data]), start)
        anchor = anchor_of(start, loaded)
        direct = readout.direct_part(system)
        D = np.asarray(feedthrough_of(system))
        found = poles._closed_form(np.zeros(anchor.shape), anchor, start, D, loaded, direct)
    np.testing.assert_allclose(found.C, start.C, rtol=1e-3, atol=1e-3 * np.abs(start.C).max())
    assert np.abs(free.C - start.C).max() > 5e-3 * np.abs(start.C).max()


@pytest.fixture
def no_ridge(monkeypatch):
    """The ridge is no part of the value, so the envelope theorem holds up to it only; without it, to rounding."""
    for module in (readout, poles_linearised):
        monkeypatch.setattr(module, "RIDGE", 1e-13)
    jax.clear_caches()
    yield
    jax.clear_caches()


def real_channels(seed):
    """Channels of one input and a real read-out each."""
    system = system_of("multi-bidirectional", seed)
    return system.replace(C=system.C.real + 0j, real_readout=True)


@pytest.mark.parametrize("kind", ["paired", "multi-bidirectional", "tied", "bidirectional-real", "real-channels"])
def test_gradients_agree_with_finite_differences(kind, no_ridge):
    system = real_channels(6) if kind == "real-channels" else system_of(kind, 6)
    with jax.enable_x64(True):
        start = truncate(system, np.tile([0, 2, 4], (system.sets, 1))).system
        loaded = load_signals(start, [signals_of(system)])
        anchor = anchor_of(start, loaded)
        model = {"anchor": anchor, "base": start, "D": np.asarray(system.D), "fit": loaded, "held": loaded}
        function, direct = (linearise, "dense") if system.multi else (poles._evaluate, readout.direct_part(system))

        def value(z):
            return function(z, **model, direct=direct)

        z = 0.1 * np.random.default_rng(0).normal(size=anchor.shape)
        gradient = np.asarray(value(z)[1])
        for k in range(z.shape[1]):
            step = np.zeros_like(z)
            step[:, k] = 1e-5
            slope = (value(z + step)[0] - value(z - step)[0]) / 2e-5
            np.testing.assert_allclose(gradient[:, k], np.asarray(slope), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["paired", "multi"])
def test_a_state_that_was_allowed_to_be_unstable_stays_as_it_is(kind):
    system = truncate(system_of(kind, 7), np.tile(np.arange(3), (system_of(kind).sets, 1))).system
    outside = system.poles.copy()
    outside[0, 0] *= 1.001 / abs(outside[0, 0])
    start = truncate(system.replace(poles=outside), np.tile(np.arange(3), (system.sets, 1)))
    found = refit_poles(system, start, [signals_of(system)], steps=40)
    assert found.changed == "all"
    assert found.system.poles[0, 0] == outside[0, 0]
    np.testing.assert_array_equal(found.system.B[0, 0], system.B[0, 0])
    assert (np.abs(np.delete(found.system.poles.ravel(), 0)) < 1).all()
    assert not np.isclose(found.system.poles.ravel()[1:], outside.ravel()[1:], rtol=1e-6).all()


def test_a_single_sequence_holds_back_its_end():
    system = system_of("paired", 8)
    data = signals_of(system, n=1, length=300)
    start = start_of(system, np.array([[0, 1, 3]]), data)
    assert error(refit_poles(system, start, [data], steps=20).system, data) < error(start.system, data)


def test_few_sequences_hold_back_the_last_of_their_own_steps():
    """What is padding behind a short sequence says nothing of when to stop."""
    system = system_of("paired", 8)
    u, y, weights = signals_of(system, n=3, length=20)
    weights[1, 10:] = 0
    weights[2, :4], weights[2, 9:] = 0, 0
    signals = load_signals(system, [(u, y, weights)])
    fitted, held = divide_signals(signals, 0.2)
    late = [list(range(16, 20)), [8, 9], [8]]
    for n, steps in enumerate(late):
        np.testing.assert_array_equal(np.flatnonzero(held.root[n]), steps)
        wanted = np.setdiff1d(np.flatnonzero(weights[n]), steps)
        np.testing.assert_array_equal(np.flatnonzero(fitted.root[n]), wanted)
    for part in (fitted, held):
        assert (part.root**2).sum() == pytest.approx(1)


@pytest.mark.parametrize("n", [5, 7, 20])
def test_of_more_sequences_whole_ones_are_held_back(n):
    system = system_of("paired", 8)
    u, y, weights = signals_of(system, n=n, length=6)
    fitted, held = divide_signals(load_signals(system, [(u, y, weights)]), 0.2)
    assert len(held.u) == max(round(0.2 * n), 1)
    assert len(fitted.u) == n - len(held.u)
    both = {one.tobytes() for one in fitted.u} & {one.tobytes() for one in held.u}
    assert both == set()


def test_padding_does_not_count():
    system = system_of("paired", 8)
    u, y, weights = signals_of(system)
    weights[:, 18:] = 0
    weights[0] = 0
    start = start_of(system, np.array([[0, 1, 3]]), (u, y, weights))
    clean = refit_poles(system, start, [(u, y, weights)], steps=5)
    y[:, 18:], y[0] = np.nan, np.nan
    dirty = refit_poles(system, start, [(u, y, weights)], steps=5)
    np.testing.assert_array_equal(clean.system.poles, dirty.system.poles)


def test_batches_that_do_not_count_are_passed_over():
    system = system_of("paired", 8)
    u, y, weights = signals_of(system)
    batches = [(u[:4], y[:4], 0 * weights[:4]), (u[4:], y[4:], weights[4:])]
    found, wanted = load_signals(system, batches), load_signals(system, [(u[4:], y[4:], weights[4:])])
    np.testing.assert_array_equal(found.u, wanted.u)
    np.testing.assert_array_equal(found.y, wanted.y)
    u[5, 3, 0] = np.inf
    with pytest.raises(InputError, match="not finite; check the data"):
        load_signals(system, batches)


def test_fewer_and_dearer_steps_are_told_as_the_steps_asked_for():
    told = []
    scaled = poles._scaled(lambda *at: told.append(at), 40)
    for done in (1, 5, 10):
        scaled(done, 10)
    assert told == [(4, 40), (20, 40), (40, 40)]
    assert poles._scaled(None, 40) is None


def test_a_layer_without_states_has_no_poles_to_refit():
    system = system_of("paired", 8)
    empty = truncate(system, np.zeros((1, 0), int))
    assert refit_poles(system, empty, []) is empty


def test_only_as_many_sequences_as_memory_allows_are_read(monkeypatch):
    system = system_of("paired", 8)
    monkeypatch.setattr(signals, "SIGNAL_BYTES", 16 * 24 * 3 * 16)
    read = []

    def endless():
        while True:
            read.append(1)
            yield signals_of(system, n=12)

    refit_poles(system, truncate(system, np.array([[0, 1, 3]])), endless(), steps=1)
    assert len(read) == 2


@pytest.mark.parametrize("build", [real_channels, lambda seed: system_of("bidirectional-real", seed)])
def test_a_real_read_out_stays_real(build):
    system = build(3)
    data = signals_of(system)
    start = start_of(system, np.tile([0, 2, 4], (system.sets, 1)), data)
    found = refit_poles(system, start, [data], steps=40).system
    assert error(found, data) < 0.9 * error(start.system, data)
    assert (found.C.imag == 0).all()


def test_poles_that_the_format_fixes_are_refused():
    system = system_of("paired", 8).replace(fixed_poles=True)
    with pytest.raises(UnsupportedModelError, match="fixed"):
        refit_poles(system, truncate(system, np.array([[0, 1]])), [signals_of(system)])


def test_oscillators_and_missing_signals_are_refused():
    system = oscillators()
    with pytest.raises(UnsupportedModelError, match="oscillators"):
        refit_poles(system, truncate(system, np.array([[0, 1]])), [signals_of(system)])
    system = system_of("paired", 8)
    with pytest.raises(InputError, match="calibration inputs"):
        refit_poles(system, truncate(system, np.array([[0, 1]])), [])
