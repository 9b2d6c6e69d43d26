"""The NumPy form of the pole refit's error and gradient, against least squares, finite differences and XLA."""

import jax
import numpy as np
import pytest

from lastcli.engine import loops, poles, readout
from lastcli.engine.pole_variables import anchor_of, moved_system
from lastcli.engine.poles import refit_poles
from lastcli.engine.poles_projected import Projected, Rows, own_error, read_out
from lastcli.engine.readout import direct_part
from lastcli.engine.reductions import truncate
from lastcli.engine.signals import divide_signals, load_signals, with_ridge
from lastcli.engine.system import feedthrough_of
from tests.engine.signals import least_squares_error, plain_features
from tests.oracles import recurrence
from tests.systems import random_system

KINDS = [
    {"inputs": 3, "outputs": 2, "pairing": 2},
    {"inputs": 2, "outputs": 3, "directions": 2},
    {"inputs": 2, "outputs": 2, "delay": 1, "directions": 2},
    {"inputs": 3, "outputs": 3, "directions": 2, "real_readout": True},
]
FORMS = [(kind, through) for kind in KINDS for through in ("none", "dense", "diagonal")
         if through != "diagonal" or kind["inputs"] == kind["outputs"]]  # fmt: skip


def layer(kind, through, seed=3):
    return random_system(seed, feedthrough=through, **kind)


def data_of(system, *, alike, n=8, length=20, seed=0):
    """(u, target, weights): what another layer answers, so that no read-out explains all of it."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(n, length, system.inputs))
    other = random_system(seed + 40, inputs=system.inputs, outputs=system.outputs)
    weights = np.ones((n, length)) if alike else rng.uniform(0, 1, (n, length)) * (rng.uniform(size=(n, length)) > 0.2)
    return u, recurrence(other, u), weights


def model_of(system, data, ridge):
    start = truncate(system, np.array([[0, 2, 4]])).system
    fit, held = divide_signals(load_signals(start, [data]), 0.25)
    fit = with_ridge(fit, start) if ridge else fit
    D = np.asarray(feedthrough_of(system))
    return {"anchor": anchor_of(start, fit), "base": start, "D": D, "fit": fit, "held": held,
            "direct": direct_part(system)}  # fmt: skip


def disturbance(model, seed=0):
    return 0.2 * np.random.default_rng(seed).normal(size=model["anchor"].shape)


@pytest.fixture
def no_ridge(monkeypatch):
    monkeypatch.setattr(readout, "RIDGE", 1e-13)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize(("kind", "through"), FORMS)
def test_the_error_is_that_of_least_squares_over_the_states(kind, through, alike, no_ridge):
    system = layer(kind, through)
    model = model_of(system, data_of(system, alike=alike), ridge=False)
    z = disturbance(model)
    moved, fit = moved_system(z, model["anchor"], model["base"]), model["fit"]
    target = (fit.y - fit.u @ model["D"][0].T).reshape(-1, system.outputs)
    weights = (fit.root**2).ravel()
    features = plain_features(moved, fit.u)[0].reshape(len(weights), -1)
    least = least_squares_error(features, fit.u.reshape(len(weights), -1), target, through, weights)
    value, _, _ = Projected(**model)(z)
    np.testing.assert_allclose(value[0], least.sum() / (target**2 * weights[:, None]).sum(), rtol=1e-6)


@pytest.mark.parametrize(("kind", "through"), FORMS)
def test_the_gradient_agrees_with_finite_differences(kind, through, no_ridge):
    system = layer(kind, through)
    model = model_of(system, data_of(system, alike=False), ridge=True)
    evaluate, z = Projected(**model), disturbance(model)
    gradient = evaluate(z)[1][0]
    for k in range(z.shape[1]):
        step = np.zeros_like(z)
        step[0, k] = 1e-5
        slope = (evaluate(z + step)[0] - evaluate(z - step)[0]) / 2e-5
        np.testing.assert_allclose(gradient[k], slope[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize(("kind", "through"), FORMS)
def test_xla_finds_the_same(kind, through, alike):
    system = layer(kind, through)
    with jax.enable_x64(True):
        model = model_of(system, data_of(system, alike=alike), ridge=True)
        z = disturbance(model)
        found, wanted = Projected(**model)(z), poles._on_host(poles._evaluate, model, z)
    for ours, theirs in zip(found, wanted):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.parametrize(("kind", "through"), FORMS)
def test_a_read_out_of_the_rows_leaves_the_error_it_should(kind, through, no_ridge):
    system = layer(kind, through)
    data = data_of(system, alike=False)
    start = truncate(system, np.array([[1, 3, 4]])).system
    signals = load_signals(start, [data])
    D = np.asarray(feedthrough_of(system))
    C, change = read_out(start, Rows.of(signals, D), direct_part(system))
    fitted = start.replace(C=C, D=start.D if through == "none" else D + change)
    weights, target = (signals.root**2).ravel(), data[1].reshape(-1, system.outputs)
    features = plain_features(start, data[0])[0].reshape(len(weights), -1)
    least = least_squares_error(features, data[0].reshape(len(weights), -1), target, through, weights)
    left = ((recurrence(fitted, data[0]) - data[1]) ** 2).sum(axis=2).ravel() @ weights
    np.testing.assert_allclose(left, least.sum(), rtol=1e-6)
    np.testing.assert_allclose(own_error(fitted, Rows.of(signals, 0 * D), 0 * D), left, rtol=1e-9)
    np.testing.assert_allclose(own_error(fitted, Rows.of(signals, D), D), left, rtol=1e-9)


def test_a_refit_by_xla_ends_where_one_by_numpy_does(monkeypatch):
    system = layer(KINDS[0], "dense")
    data = data_of(system, alike=True)
    start = truncate(system, np.array([[0, 1, 3]]))
    found = refit_poles(system, start, [data], steps=10).system
    monkeypatch.setattr(poles, "_by_numpy", lambda _: False)
    other = refit_poles(system, start, [data], steps=10).system
    assert np.abs(found.poles - start.system.poles).max() > 1e-3
    np.testing.assert_allclose(found.poles, other.poles, rtol=1e-5)
    np.testing.assert_allclose(found.C, other.C, rtol=1e-4, atol=1e-5 * np.abs(other.C).max())


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("delay", [0, 1])
def test_loops_are_the_recurrence(multi, delay):
    given = {"groups": 3, "inputs": 1, "outputs": 1, "multi": True} if multi else {"inputs": 3}
    system = random_system(5, directions=2, delay=delay, **given)
    u = np.random.default_rng(0).normal(size=(4, 12, 3))
    x = loops.passed(system, loops.in_time(u))  # (L, n, R, G, K)
    features = plain_features(system, u).reshape(system.groups, 4, 12, system.states, 2, 2)
    np.testing.assert_allclose(x.real, np.transpose(features[..., 0], (2, 1, 4, 0, 3)), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(x.imag, np.transpose(features[..., 1], (2, 1, 4, 0, 3)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("multi", [False, True])
def test_the_ridge_is_relative_to_the_mean_square_of_the_features(multi):
    given = {"groups": 3, "inputs": 1, "outputs": 1, "multi": True} if multi else {"inputs": 3, "outputs": 3}
    system = random_system(5, directions=2, **given)
    u, _, weights = data_of(random_system(0, inputs=3, outputs=3), alike=False)
    signals = with_ridge(load_signals(system, [(u, u, weights)]), system)
    f = plain_features(system, u)
    wanted = np.einsum("gnlf,nl->g", f**2, weights / weights.sum()) / f.shape[3]
    np.testing.assert_allclose(signals.variance, wanted, rtol=1e-10)
    np.testing.assert_allclose(signals.epsilon, 1 / (system.groups * weights.sum()))
