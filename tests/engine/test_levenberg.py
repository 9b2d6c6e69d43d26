import numpy as np
import pytest

from lastcli.engine.levenberg import levenberg_marquardt


def rosenbrock(z, held=None):
    """As a sum of squares: residuals 1 - a and 10 (b - a²)."""
    a, b = z[:, 0], z[:, 1]
    r = np.stack([1 - a, 10 * (b - a**2)], axis=1)
    J = np.zeros((len(z), 2, 2))
    J[:, 0, 0], J[:, 1, 0], J[:, 1, 1] = -1, -20 * a, 10
    value = (r**2).sum(axis=1)
    gradient = 2 * np.einsum("sri,sr->si", J, r)
    return value, gradient, 2 * np.einsum("sri,srj->sij", J, J), value if held is None else held(z)


def test_several_problems_reach_their_minimum_in_few_steps():
    start, told = np.array([[-1.2, 1.0], [2.0, 2.0], [0.0, 0.0]]), []
    found = levenberg_marquardt(rosenbrock, start, steps=50, patience=50, progress=lambda *at: told.append(at))
    np.testing.assert_allclose(found.best, 1.0, atol=1e-6)
    assert told == [(done, 50) for done in range(1, found.steps + 1)]


def test_the_point_with_the_best_held_back_value_is_returned():
    def held(z):
        return (z[:, 0] + 0.5) ** 2 + 1

    found = levenberg_marquardt(lambda z: rosenbrock(z, held), np.array([[-1.2, 1.0]]), steps=100)
    assert found.held[0] == pytest.approx(held(found.best)[0])
    assert found.held[0] < found.start[0]
    assert found.steps < 100


def test_values_that_are_not_finite_are_stepped_around():
    def walled(z):
        value, *rest = rosenbrock(z)
        return np.where(z[:, 0] > 1.3, np.nan, value), *rest

    found = levenberg_marquardt(walled, np.array([[-1.2, 1.0]]), steps=80, patience=80)
    np.testing.assert_allclose(found.best, 1.0, atol=1e-6)


def test_a_variable_without_effect_stays():
    def flat(z):
        value, gradient, curvature, held = rosenbrock(z[:, :2])
        wide = np.zeros((len(z), 3, 3))
        wide[:, :2, :2] = curvature
        return value, np.concatenate([gradient, np.zeros((len(z), 1))], axis=1), wide, held

    found = levenberg_marquardt(flat, np.array([[-1.2, 1.0, 7.0]]), steps=50, patience=50)
    np.testing.assert_allclose(found.best, [[1, 1, 7]], atol=1e-6)


def test_a_standstill_ends_it():
    def stuck(z):
        return np.ones(len(z)) + (z**2).sum(axis=1), -2 * z - 1, np.tile(np.eye(2), (len(z), 1, 1)), np.ones(len(z))

    assert levenberg_marquardt(stuck, np.array([[1.0, 1.0]]), steps=500, patience=500).steps < 50
