"""Scores and selection against slow, obvious re-computations."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastcli.engine.allocation import ALLOCATIONS, scores, select, states_to_keep
from lastcli.errors import UsageError


def layers_of(seed, shapes, levels=None):
    """Random energies over twelve orders of magnitude; few levels make ties."""
    rng = np.random.default_rng(seed)
    draw = [rng.integers(0, levels, shape) if levels else rng.uniform(-12, 0, shape) for shape in shapes]
    return [np.float64(10.0) ** d for d in draw]


MIMO = st.lists(st.integers(1, 8), min_size=1, max_size=4).map(lambda sizes: [(1, n) for n in sizes])
MIXED = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=4)


def test_adaptive_is_the_energy_over_the_energy_so_far():
    energy = np.array([[1.0, 4.0, 0.0, 5.0]])
    np.testing.assert_allclose(scores([energy], "adaptive")[0], [[1 / 10, 4 / 9, 0, 1]])


def test_adaptive_of_several_sets_works_on_the_ranks():
    energy = np.array([[3.0, 1.0], [2.0, 5.0]])
    np.testing.assert_allclose(scores([energy], "adaptive")[0], [[1, 3 / 11], [3 / 11, 1]])


def test_global_is_what_a_stored_state_brings():
    energy = np.array([[3.0, 1.0], [2.0, 5.0]])
    np.testing.assert_allclose(scores([energy, energy[:1]], "global")[0], [[4, 1.5], [1.5, 4]])
    np.testing.assert_allclose(scores([energy, energy[:1]], "global")[1], [[3, 1]])


def test_adaptive_survives_extreme_and_infinite_energies():
    tiny, huge = np.array([[1e-300, 3e-300]]), np.array([[1e308, 1e308]])
    dead, endless = np.zeros((1, 3)), np.array([[np.inf, 1.0, 3.0]])
    found = scores([tiny, huge, dead, endless], "adaptive")
    np.testing.assert_allclose(found[0], [[0.25, 1]])
    np.testing.assert_allclose(found[1], [[1, 0.5]])
    np.testing.assert_array_equal(found[2], [[0, 0, 0]])
    np.testing.assert_allclose(found[3], [[np.inf, 0.25, 1]])


@given(seed=st.integers(0, 99), shapes=MIXED, allocation=st.sampled_from(sorted(ALLOCATIONS)))
@settings(max_examples=30, deadline=None)
def test_scores_follow_the_energies_and_ignore_a_layers_scale(seed, shapes, allocation):
    energies = layers_of(seed, shapes)
    for energy, score in zip(energies, scores(energies, allocation)):
        order = np.argsort(-energy, axis=1)
        assert (np.diff(np.take_along_axis(score, order, axis=1)) <= 0).all()
    if allocation != "global":
        scaled = [energy * 10.0**layer for layer, energy in enumerate(energies)]
        for one, other in zip(scores(energies, allocation), scores(scaled, allocation)):
            np.testing.assert_allclose(one, other, rtol=1e-12)


@given(total=st.integers(1, 5000), percent=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_number_kept_is_exact(total, percent):
    exact = max(total * (1000 - percent) // 1000, 1)
    assert states_to_keep(total, Decimal(percent) / 1000) == exact
    assert states_to_keep(total, percent / 1000) == exact
    assert states_to_keep(total, np.float64(percent) / 1000) == exact


@pytest.mark.parametrize("ratio", [-0.1, 1.01, float("nan"), "many", float("inf")])
def test_ratios_that_make_no_sense(ratio):
    with pytest.raises(UsageError, match="ratio"):
        states_to_keep(10, ratio)


@given(
    seed=st.integers(0, 99),
    shapes=MIMO,
    ratio=st.integers(0, 20),
    floor=st.integers(0, 3),
    levels=st.none() | st.just(3),
)
@settings(max_examples=80, deadline=None)
def test_selection_of_single_sets_is_a_sort(seed, shapes, ratio, floor, levels):
    energies = layers_of(seed, shapes, levels)
    total = sum(n for _, n in shapes)
    K = max(int(total * (1 - Fraction(ratio, 20))), 1)
    # every state as (score, -layer, energy, -index); the floors are the best of each layer
    rows = []
    for layer, (energy, score) in enumerate(zip(energies, scores(energies, "adaptive"))):
        rows += [(score[0, i], -layer, energy[0, i], -i) for i in range(energy.shape[1])]
    rows.sort(reverse=True)
    chosen = [row for layer in range(len(shapes)) for row in [r for r in rows if r[1] == -layer][:floor]]
    chosen += [row for row in rows if row not in chosen][: max(K - len(chosen), 0)]
    kept = select(energies, "adaptive", ratio=ratio / 20, min_states=floor)
    for layer, indices in enumerate(kept):
        assert indices.shape[0] == 1
        assert list(indices[0]) == sorted(-row[3] for row in chosen if row[1] == -layer)


@given(seed=st.integers(0, 99), shapes=MIXED, ratio=st.integers(0, 20), allocation=st.sampled_from(sorted(ALLOCATIONS)))
@settings(max_examples=60, deadline=None)
def test_selection_of_several_sets_fills_the_budget(seed, shapes, ratio, allocation):
    energies = layers_of(seed, shapes)
    total = sum(sets * n for sets, n in shapes)
    K = states_to_keep(total, ratio / 20)
    kept = select(energies, allocation, ratio=ratio / 20)
    used = sum(indices.size for indices in kept)
    floors = sum(sets for sets, _ in shapes)
    assert used <= max(K, floors)
    for energy, indices, (sets, n) in zip(energies, kept, shapes):
        k = indices.shape[1]
        assert 1 <= k <= n
        assert k == n or used + sets > K  # nothing more would have fitted
        for row, own in zip(energy, indices):
            assert set(own) == set(np.argsort(-row, kind="stable")[:k])


def test_ties_go_to_the_earlier_layer_and_the_lower_index():
    equal = [np.ones((1, 3)), np.ones((1, 3))]
    kept = select(equal, "global", states=4)
    np.testing.assert_array_equal(kept[0], [[0, 1, 2]])
    np.testing.assert_array_equal(kept[1], [[0]])


def test_reference_keeps_every_tie_at_the_threshold():
    equal = [np.array([[3.0, 1.0, 1.0]]), np.array([[2.0, 1.0, 0.5]])]
    kept = select(equal, "global", states=3, ties="reference")
    np.testing.assert_array_equal(kept[0], [[0, 1, 2]])
    np.testing.assert_array_equal(kept[1], [[0, 1]])


def test_pinned_states_stay_in_every_layout():
    energies = layers_of(4, [(1, 5), (2, 4)])
    pinned = [np.zeros((1, 5), bool), np.zeros((2, 4), bool)]
    pinned[0][0, np.argmin(energies[0])] = True
    pinned[1][1, np.argsort(energies[1][1])[:2]] = True
    for layout in ("ragged", "uniform"):
        kept = select(energies, "adaptive", states=4, layout=layout, pinned=pinned)
        assert kept[1].shape == (2, 2)
        assert set(np.flatnonzero(pinned[0][0])) <= set(kept[0][0])
        assert set(kept[1][1]) == set(np.flatnonzero(pinned[1][1]))


def test_uniform_layout_gives_every_layer_the_same_count():
    energies = layers_of(1, [(1, 8), (1, 8), (1, 8)])
    kept = select(energies, "adaptive", ratio=0.5, layout="uniform")
    assert [indices.shape[1] for indices in kept] == [4, 4, 4]
    kept = select(energies, "global", ratio=0.55, layout="uniform")
    assert [indices.shape[1] for indices in kept] == [3, 3, 3]


def test_scores_of_ones_own_choose_by_score():
    given_scores = [np.array([[0.1, 0.9, 0.5]])]
    kept = select([np.array([[9.0, 1.0, 1.0]])], given_scores, states=2)
    np.testing.assert_array_equal(kept[0], [[1, 2]])


@pytest.mark.parametrize(
    "options",
    [{}, {"ratio": 0.5, "states": 1}, {"states": 4}, {"ratio": 0.5, "layout": "square"}, {"states": 1, "ties": "x"}],
)
def test_contradictions_are_refused(options):
    with pytest.raises(UsageError):
        select([np.ones((1, 3))], "global", **options)
    with pytest.raises(UsageError, match="adaptive"):
        scores([np.ones((1, 3))], "best")


@pytest.mark.parametrize(("ratio", "counts"), [(0.5, [8, 8, 16, 16]), (0.4, [9, 9, 18, 18]), (0, [16, 16, 32, 32])])
def test_proportional_layout_keeps_the_ratio_of_the_layers(ratio: float, counts: list[int]) -> None:
    rng = np.random.default_rng(4)
    energies = [rng.uniform(size=(1, n)) for n in (16, 16, 32, 32)]
    kept = select(energies, "adaptive", ratio=ratio, layout="proportional")
    assert [k.shape[1] for k in kept] == counts
    for energy, states in zip(energies, kept):
        assert set(states[0]) == set(np.argsort(-energy[0])[: states.shape[1]])


def test_proportional_layout_meets_every_floor_in_the_ratio() -> None:
    energies = [np.ones((1, n)) for n in (4, 6)]
    pinned = [np.zeros((1, 4), bool), np.arange(6)[None] < 5]
    assert [k.shape[1] for k in select(energies, "global", states=1, layout="proportional")] == [2, 3]
    kept = select(energies, "global", states=1, layout="proportional", pinned=pinned)
    assert [k.shape[1] for k in kept] == [4, 6]
    kept = select([np.ones((2, 3)), np.ones((1, 3))], "global", states=7, layout="proportional")
    assert [k.shape[1] for k in kept] == [2, 2]
