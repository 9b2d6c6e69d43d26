import dataclasses

import numpy as np
import pytest

from lastcli.engine import exchange
from lastcli.engine.elimination import eliminate_blocks
from lastcli.engine.embedding import kept_indices
from lastcli.engine.regression import Regression
from lastcli.engine.swaps import Fit, Offers

GROUPS, OUTPUTS, STATES = 3, 4, 9


def problem_of(size, diagonal):
    """Joint moments of random features, targets and own inputs: all that a layer of `size` features a state needs."""
    F = size * STATES
    factor = np.random.default_rng(size).normal(size=(GROUPS, F + 2 * OUTPUTS, 3 * F))
    joint = factor @ factor.swapaxes(1, 2) / F
    y, u = slice(F, F + OUTPUTS), slice(F + OUTPUTS, None)
    pick = np.arange(OUTPUTS)
    of_inputs = {
        "Y": joint[:, u, :F],
        "own": joint[:, y, u][:, pick, pick],
        "power": joint[:, u, u][:, pick, pick],
        "floor": np.zeros((GROUPS, OUTPUTS)),
    }
    return Regression(
        M=joint[:, :F, :F],
        X=joint[:, y, :F],
        energy=joint[:, y, y][:, pick, pick].sum(axis=1),
        ridge=np.zeros(()),
        **(of_inputs if diagonal else {}),
    )


def worst(problem, sets):
    """The four states of every set that an elimination gives up first."""
    return np.sort(eliminate_blocks(problem, 2, sets, np.ones(sets)).order[:, :4], axis=1)


def same(fit, wanted):
    for field in dataclasses.fields(Fit):
        found, expected = getattr(fit, field.name), getattr(wanted, field.name)
        pairs = zip(found, expected) if field.name == "direct" and expected is not None else [(found, expected)]
        for one, other in pairs:
            if other is not None:
                np.testing.assert_allclose(one, other, atol=1e-9 * np.abs(other).max(), err_msg=field.name)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_fit_after_swaps_is_that_of_the_new_states(size, diagonal):
    """All its arrays, against the inverses of the new choice, where all groups or only some of them change."""
    problem, rng = problem_of(size, diagonal), np.random.default_rng(1)
    kept = np.stack([rng.permutation(STATES)[:4] for _ in range(GROUPS)])
    fit = Fit.of(problem, kept_indices(kept, GROUPS, size), size)
    for groups in ([0, 1, 2], [1], [0, 2], [0, 1, 2]):
        groups = np.array(groups)
        i = rng.integers(4, size=len(groups))
        new = np.array([rng.choice(np.setdiff1d(np.arange(STATES), kept[g])) for g in groups])
        fit = fit.exchanged(problem, kept, groups, i, new)
        kept[groups, i] = new
        same(fit, Fit.of(problem, kept_indices(kept, GROUPS, size), size))


@pytest.mark.parametrize("sets", [1, 3])
def test_swaps_by_changes_of_the_fit_are_those_by_fits_from_the_start(sets, monkeypatch):
    problem = problem_of(2, True)
    start = worst(problem, sets)
    found = exchange.exchange_blocks(problem, 2, start)
    assert (found != start).any()
    monkeypatch.setattr(exchange, "_AFRESH", 1)
    np.testing.assert_array_equal(found, exchange.exchange_blocks(problem, 2, start))


def test_a_fit_that_rounding_has_spoilt_is_solved_anew(monkeypatch):
    problem, solved, of = problem_of(2, True), [], Fit.of
    start = worst(problem, 1)
    wanted = exchange.exchange_blocks(problem, 2, start)
    exchanged = Fit.exchanged

    def spoilt(*given):
        fit = exchanged(*given)
        return dataclasses.replace(fit, explained=fit.explained * 0.9)

    monkeypatch.setattr(Fit, "exchanged", spoilt)
    monkeypatch.setattr(Fit, "of", classmethod(lambda cls, *given: solved.append(1) or of(*given)))
    np.testing.assert_array_equal(exchange.exchange_blocks(problem, 2, start), wanted)
    assert len(solved) > 1


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_a_swap_would_change_is_what_it_changes(size, diagonal):
    """Of every kept state and every dropped one, against the error of a fit of the new choice."""
    problem, rng = problem_of(size, diagonal), np.random.default_rng(2)
    kept = np.stack([np.sort(rng.permutation(STATES)[:4]) for _ in range(GROUPS)])
    fit = Fit.of(problem, kept_indices(kept, GROUPS, size), size)
    dropped = np.stack([np.setdiff1d(np.arange(STATES), kept[g]) for g in range(GROUPS)])
    offers = Offers.of(fit, dropped)
    for position in range(4):
        changes = offers.changes(np.full(GROUPS, position))
        for offered in range(STATES - 4):
            swapped = kept.copy()
            swapped[:, position] = dropped[:, offered]
            after = Fit.of(problem, kept_indices(swapped, GROUPS, size), size)
            np.testing.assert_allclose(changes[:, offered], fit.explained - after.explained, rtol=1e-9, atol=1e-12)
