import numpy as np
import pytest

from lastcli.engine.descent import minimise


def rosenbrock(z):
    a, b = z[:, 0], z[:, 1]
    value = (1 - a) ** 2 + 100 * (b - a**2) ** 2
    return value, np.stack([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)], axis=1)


def watched(objective, held=None):
    """The objective with held-back values, its own where no others are given."""

    def evaluate(z):
        value, gradient = objective(z)
        return value, gradient, value if held is None else held(z)

    return evaluate


def test_several_problems_reach_their_minimum_side_by_side():
    start = np.array([[-1.2, 1.0], [2.0, 2.0], [0.0, 0.0]])
    found = minimise(watched(rosenbrock), start, steps=200, patience=200)
    np.testing.assert_allclose(found.best, 1.0, atol=1e-5)


def test_problems_do_not_disturb_each_other():
    start = np.array([[-1.2, 1.0], [2.0, 2.0]])
    together = minimise(watched(rosenbrock), start, steps=15, patience=200)
    alone = minimise(watched(rosenbrock), start[:1], steps=15, patience=200)
    np.testing.assert_allclose(together.best[0], alone.best[0], rtol=1e-9)


def test_the_point_with_the_best_held_back_value_is_returned():
    def held(z):
        return (z[:, 0] + 0.5) ** 2 + 1

    found = minimise(watched(rosenbrock, held), np.array([[-1.2, 1.0]]), steps=100, patience=10)
    assert found.held[0] == pytest.approx(held(found.best)[0])
    assert found.held[0] < found.start[0]
    assert found.best[0, 0] < 0.5
    assert found.steps < 100


def test_it_stays_where_it_is_if_every_step_makes_it_worse():
    found = minimise(watched(rosenbrock, lambda z: -rosenbrock(z)[0]), np.array([[-1.2, 1.0]]), steps=20)
    np.testing.assert_array_equal(found.best, [[-1.2, 1.0]])


def test_a_problem_that_no_step_helps_ends_it():
    def misled(z):
        return (z**2).sum(axis=1), -2 * z

    found = minimise(watched(misled), np.array([[1.0, -2.0]]), steps=50, patience=50)
    np.testing.assert_array_equal(found.best, [[1.0, -2.0]])
    assert found.steps <= 1


def test_values_that_are_not_finite_are_stepped_around():
    def walled(z):
        value, gradient = rosenbrock(z)
        return np.where(z[:, 0] > 1.5, np.nan, value), gradient

    found = minimise(watched(walled), np.array([[-1.2, 1.0]]), steps=200, patience=200)
    np.testing.assert_allclose(found.best, 1.0, atol=1e-5)


def test_progress_counts_the_steps():
    seen = []
    minimise(watched(rosenbrock), np.array([[-1.2, 1.0]]), steps=5,
             progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert seen == [(k, 5) for k in range(1, 6)]


def held_by_step(values):
    """A valley that is walked down a step at a time, with these held-back values on the way."""
    left = iter(values)

    def evaluate(z):
        return (1e6 + z[:, 0]), np.ones((1, 1)), np.array([next(left)])

    return evaluate


def test_held_back_values_that_are_lost_end_it_before_patience_does():
    path = [10.0, 9.0, 8.0, 8.2, 8.3, 8.4, *[8.5] * 50]
    found = minimise(held_by_step(path), np.zeros((1, 1)), steps=50, patience=40)
    assert (found.steps, found.held[0]) == (5, 8.0)


def test_held_back_values_that_waver_and_go_on_falling_do_not():
    path = [10.0, 9.0, 8.0, 8.2, 8.3, 8.05, 8.06, 8.07, 8.05, 7.9, *[7.9] * 50]
    found = minimise(held_by_step(path), np.zeros((1, 1)), steps=30, patience=20)
    assert found.held[0] == 7.9
    assert found.steps > 20
