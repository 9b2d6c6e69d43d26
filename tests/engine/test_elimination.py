from dataclasses import replace

import numpy as np
import pytest

from lastcli.engine import elimination as module
from lastcli.engine import elimination_compiled, elimination_numpy
from lastcli.engine.elimination import eliminate
from lastcli.engine.moments import accumulate, empty_moments
from lastcli.engine.regression import regression_of
from lastcli.engine.white_noise import white_noise_moments
from tests.engine.signals import by_group, columns, least_squares_error, plain_features
from tests.oracles import recurrence
from tests.systems import KINDS, random_system, system_of


@pytest.fixture(params=["numpy", "compiled"])
def way(request, monkeypatch):
    """On a CPU layers of one group are eliminated by NumPy; elsewhere, and all others, by a compiled program."""
    if request.param == "compiled":
        monkeypatch.setattr(module.jax, "default_backend", lambda: "gpu")


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


@pytest.mark.usefixtures("way")
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


@pytest.mark.usefixtures("way")
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
    monkeypatch.setattr(module.jax, "default_backend", lambda: "gpu")
    system = system_of(kind, 5)
    _, moments = calibrated(system)
    whole = eliminate(system, moments)
    monkeypatch.setattr(elimination_compiled, "_SMALLEST_STAGE", 2)
    staged = eliminate(system, moments)
    np.testing.assert_array_equal(staged.order, whole.order)
    np.testing.assert_allclose(staged.layer_scores, whole.layer_scores, rtol=1e-6)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", ["multi", "paired"])
def test_pinned_states_go_last(kind):
    system = system_of(kind, 6)
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


def clustered(feedthrough, states=18, gap=1e-4):
    """Poles in clusters of six that are `gap` apart."""
    system = random_system(11, states=states, inputs=3, outputs=3, pairing=2, feedthrough=feedthrough)
    first = np.repeat(system.poles[:, ::6] * 0.97 / np.abs(system.poles[:, ::6]), 6, axis=1)[:, :states]
    return system.replace(poles=first * (1 - gap * (np.arange(states) % 6)))


def ridge_error(system, kept, ridge=1e-7, length=900):
    """Squared error of the ridge solution, from impulse responses: rows of the ridge below those of the features, so
    that nothing is squared and no inverse is needed."""
    u = np.zeros((system.inputs, length, system.inputs))
    u[np.arange(system.inputs), 0, np.arange(system.inputs)] = 1
    f = plain_features(system, u)[0].reshape(-1, 2 * system.states)
    y = recurrence(system.replace(D=None), u).reshape(len(f), -1)
    f = f / np.sqrt((f**2).sum(axis=0).mean())
    f, v = f[:, columns(system, kept)] if len(kept) else f[:, :0], u.reshape(len(f), -1)
    error = 0.0
    for o in range(system.outputs):
        extra = {"none": v[:, :0], "dense": v, "diagonal": v[:, o : o + 1]}[system.feedthrough]
        design = np.concatenate([f, extra], axis=1)
        rows = np.concatenate([design, np.sqrt(ridge) * np.eye(design.shape[1])])
        target = np.concatenate([y[:, o], np.zeros(design.shape[1])])
        error += ((y[:, o] - design @ np.linalg.lstsq(rows, target, rcond=None)[0]) ** 2).sum()
    return error / (y**2).sum()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("feedthrough", ["none", "diagonal", "dense"])
def test_scores_of_clustered_poles_are_the_errors_of_the_ridge_solutions(feedthrough):
    system = clustered(feedthrough)
    found = eliminate(system, white_noise_moments(system))
    for j in range(system.states):
        expected = ridge_error(system, found.order[0, j + 1 :])
        assert found.layer_scores[j] == pytest.approx(expected, rel=1e-6, abs=1e-10)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("states", [24, 96])
@pytest.mark.parametrize("gap", [1e-3, 1e-4, 1e-6])
def test_without_any_state_and_D_nothing_more_than_everything_is_lost(states, gap):
    system = clustered("none", states, gap)
    found = eliminate(system, white_noise_moments(system))
    assert found.layer_scores[-1] == pytest.approx(1, abs=1e-9)
    assert found.layer_scores.max() <= 1 + 1e-9
    assert found.layer_scores[0] < 2e-8  # the ridge alone would be several times that


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", ["mimo", "multi", "tied", "bidirectional"])
def test_scores_of_few_steps_are_errors_and_ranks_are_objectives(kind):
    system = system_of(kind, 6)
    _, moments = calibrated(system)
    few = moments.replace(weight=np.array(20.0))
    found = eliminate(system, few)
    ridge = 1e-7 + 1 / (20 * system.groups)
    curve = [ridge_solution(system, found.order[:, j + 1 :], few, ridge) for j in range(system.states)]
    errors, objectives, whole = (np.array(values) for values in zip(*curve))
    # one set after the other: what a set has lost once is never said to be less
    errors = np.maximum.accumulate(errors.reshape(len(errors), -1, system.sets).sum(axis=1), axis=0)
    np.testing.assert_allclose(found.layer_scores, errors.sum(axis=1) / whole[0], rtol=1e-6)
    rank = np.take_along_axis(found.rank, found.order, axis=1)
    np.testing.assert_allclose(rank, np.tile(objectives.sum(axis=1) / whole, (system.sets, 1)), rtol=1e-6)
    assert (found.rank >= found.share).all()
    assert (rank[:, :-1] > found.layer_scores[:-1]).all()


def ridge_solution(system, kept, moments, ridge):
    """Error and objective of each group's ridge solution from the normal equations, and the energy of the layer."""
    D = np.zeros((system.groups, system.outputs, system.inputs)) if system.D is None else system.D
    error, objective, whole = np.zeros(system.groups), np.zeros(system.groups), 0.0
    for g in range(system.groups):
        M, U, Y = moments.features[g], moments.inputs[g], moments.input_features[g]
        size = np.diag(M).mean()
        K = columns(system, kept[g % system.sets]) if kept.shape[1] else np.zeros(0, int)
        m = system.inputs if system.feedthrough != "none" else 0
        gram = np.block([[M[np.ix_(K, K)], Y[:m, K].T], [Y[:m, K], U[:m, :m]]])
        weight = ridge * np.concatenate([np.full(len(K), size), np.diag(U)[:m]])
        for o in range(system.outputs):
            own = moments.target_inputs[g, o] - D[g, o] @ U
            x = np.concatenate([(moments.cross[g, o] - D[g, o] @ Y)[K], own[:m]])
            energy = moments.energy[g, o] - 2 * D[g, o] @ moments.target_inputs[g, o] + D[g, o] @ U @ D[g, o]
            w = np.linalg.solve(gram + np.diag(weight), x)
            error[g] += energy - 2 * x @ w + w @ gram @ w
            objective[g] += energy - x @ w
            whole += energy
    return error, objective, whole


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("feedthrough", ["none", "diagonal", "dense"])
@pytest.mark.parametrize("refreshed", [False, True])
def test_numpy_and_the_compiled_program_take_the_same_states(directions, feedthrough, refreshed, monkeypatch):
    system = random_system(8, states=20, inputs=3, outputs=3, pairing=2, directions=directions, feedthrough=feedthrough)
    _, moments = calibrated(system)
    if refreshed:  # the inverse is computed afresh as often as may be
        for place in (elimination_compiled, elimination_numpy):
            monkeypatch.setattr(place, "DRIFT", 0.0)
    found = eliminate(system, moments)
    monkeypatch.setattr(module.jax, "default_backend", lambda: "gpu")
    compiled = eliminate(system, moments)
    np.testing.assert_array_equal(found.order, compiled.order)
    for name in ("error", "layer_scores", "rank"):
        one, other = getattr(found, name), getattr(compiled, name)
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8 * other.max())


def test_an_inverse_is_computed_afresh_where_rounding_has_spoilt_it(monkeypatch):
    """Never of a sound layer; with the inverse off by a factor, for every state."""
    system = system_of("paired", 5)
    moments = white_noise_moments(system)
    solved, solve, column = [], elimination_numpy._Left.solve, elimination_numpy._Left.column
    monkeypatch.setattr(elimination_numpy._Left, "solve", lambda self: (solved.append(len(self.index)), solve(self)))
    whole = eliminate(system, moments)
    assert solved == [system.states]
    solved.clear()
    monkeypatch.setattr(
        elimination_numpy._Left, "column", lambda self, q: column(self, q) * (1 if self._delayed == 0 else 1 + 1e-6)
    )
    again = eliminate(system, moments)
    assert solved == list(range(system.states, 0, -1))
    np.testing.assert_array_equal(again.order, whole.order)
    np.testing.assert_allclose(again.error, whole.error, rtol=1e-9)


@pytest.mark.parametrize("size", [1, 3, 8, 9])
def test_blocks_are_inverted_at_once(size):
    rng = np.random.default_rng(size)
    factors = rng.normal(size=(7, size, size + 2))
    blocks = factors @ factors.swapaxes(1, 2)
    blocks.setflags(write=False)
    np.testing.assert_allclose(elimination_numpy._inverses(blocks), np.linalg.inv(blocks), rtol=1e-6)
    assert not np.isfinite(elimination_numpy._inverses(np.zeros((1, size, size)))).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_moments_that_are_no_moments_end_in_an_order_all_the_same(value):
    system = random_system(3, states=6, inputs=3, outputs=3, feedthrough="diagonal")
    problem = regression_of(system, white_noise_moments(system))
    M = problem.M.copy()
    M[0, 3], M[0, :, 3] = value, value
    found = module.eliminate_blocks(replace(problem, M=M), len(M[0]) // 6, 1, np.ones(1))
    np.testing.assert_array_equal(np.sort(found.order), [np.arange(6)])
