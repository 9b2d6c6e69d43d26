import numpy as np
import pytest

from lastcli.engine.downdating import Inverse, Probe
from lastcli.engine.precision import in_float64

GROUPS, SIZE, STATES = 2, 2, 6


def matrix(seed=0):
    """Symmetric positive definite, (G, b·n, b·n), features in the order (b, n)."""
    factor = np.random.default_rng(seed).normal(size=(GROUPS, SIZE * STATES, SIZE * STATES + 4))
    return factor @ factor.swapaxes(1, 2)


def features(states):
    return np.concatenate([np.asarray(states) + k * STATES for k in range(SIZE)])


def without(inverse, q):
    """One more state gone, as the elimination takes it."""
    column = np.asarray(inverse.column(q))
    own = np.stack([column[g][:, :, q[g]] for g in range(GROUPS)])
    return column, np.einsum("gkl,glin->gkin", np.linalg.inv(own), column)


@pytest.mark.parametrize("together", [1, 2, 5])
def test_the_inverse_of_what_is_left(together):
    M = matrix()
    lost = np.array([[4, 1, 3], [0, 5, 2]])

    @in_float64
    def run():
        inverse, taken = Inverse.of(np.linalg.inv(M), SIZE, together), 0
        for q in lost.T:
            column, row = without(inverse, q)
            inverse, taken = inverse.changed(taken, column, row), taken + 1
            if taken == together:
                inverse, taken = Inverse.of(inverse.settled(), SIZE, together), 0
        every = [np.asarray(inverse.column(np.full(GROUPS, q))) for q in range(STATES)]
        return np.asarray(inverse.settled()), np.stack(every, axis=-1)

    settled, columns = run()
    for g in range(GROUPS):
        left = features([q for q in range(STATES) if q not in lost[g]])
        wanted = np.zeros(M.shape[1:])
        wanted[np.ix_(left, left)] = np.linalg.inv(M[g][np.ix_(left, left)])
        np.testing.assert_allclose(settled[g], wanted, atol=1e-10 * np.abs(wanted).max())
        of_column = columns[g].transpose(0, 3, 1, 2).reshape(M.shape[1:])  # [(k, q), (i, n)]
        np.testing.assert_allclose(of_column, wanted, atol=1e-10 * np.abs(wanted).max())


def test_the_probe_sees_what_is_wrong_with_a_column_of_what_is_left():
    M, q = matrix(1), np.array([2, 4])
    here = np.ones((GROUPS, STATES), bool)

    @in_float64
    def drifts(wrong):
        probe = Probe.of(M, np.tile(here, (1, SIZE)), SIZE)
        inverse = Inverse.of(np.linalg.inv(M), SIZE, 3)
        column, row = without(inverse, q)
        probe, left = probe.without(M, q), here.copy()
        left[np.arange(GROUPS), q] = False
        column = np.array(inverse.changed(0, column, row).column(np.zeros(GROUPS, int)))
        column[1, 0, 1, 3] += wrong
        # what has gone is not looked at
        column[0, :, :, q[0]] = 7.0
        return float(probe.drift(column, left, np.zeros(GROUPS, int)))

    assert drifts(0.0) < 1e-12
    # M times the disturbance, over the features that are left, as the signs see it
    left = features([n for n in range(STATES) if n != q[1]])
    effect = np.linalg.norm(1e-6 * M[1][left, 3 + STATES])
    assert effect / 4 < drifts(1e-6) < 4 * effect
