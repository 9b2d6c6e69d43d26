from functools import partial

import numpy as np
import pytest

from lastcli.engine.diagonal import refit_on_signals
from lastcli.engine.embedding import embed
from lastcli.engine.engines import engine_of
from lastcli.engine.reductions import refit, residual, truncate
from lastcli.engine.selective.moments import SelectiveMoments
from lastcli.errors import InputError
from lastcli.reduction import calibration
from lastcli.reduction.calibration import (
    collect_moments,
    counted_steps,
    layer_signals,
    sequential_refit,
    signal_moments,
)
from tests.engine.signals import plain_features
from tests.evaluation.models import Counted, forward, parameters, split, systems
from tests.oracles import recurrence


def plain_inputs(params, layers, x):
    """The inputs of both layers by a plain recurrence in float64."""
    first = x.astype(np.float64) @ params["in"]
    return first, first + np.tanh(recurrence(layers[0], first))


def mean_gram(f, weights):
    return np.einsum("tkf,tk,tkh->fh", f, weights / weights.sum(), f)


@pytest.mark.parametrize("padded", [False, True])
def test_moments_are_those_of_the_inputs_that_reach_each_layer(padded):
    lengths = np.random.default_rng(0).integers(3, 10, 23) if padded else None
    data, params, layers = split(lengths=lengths), parameters(), systems()
    found = collect_moments(forward(Counted()), params, layers, data.batches(8))
    weights = np.ones((23, 9)) if lengths is None else (np.arange(9) < lengths[:, None]).astype(float)
    for system, u, moments in zip(layers, plain_inputs(params, layers, data.x), found):
        f = plain_features(system, u)[0]
        np.testing.assert_allclose(moments.features[0], mean_gram(f, weights), rtol=1e-4, atol=1e-4)
        y = recurrence(system, u)
        expected = np.einsum("nlp,nl->p", y**2, weights) / weights.sum()
        np.testing.assert_allclose(moments.energy[0], expected, rtol=1e-4)
        assert moments.weight == pytest.approx(weights.sum())


def test_the_batch_size_does_not_matter_and_one_program_serves_all():
    params, layers, model = parameters(), systems(), Counted()
    one = collect_moments(forward(model), params, layers, split().batches(5))
    assert model.traces == 1
    other = collect_moments(forward(Counted()), params, layers, split().batches(23))
    np.testing.assert_allclose(one[1].features, other[1].features, rtol=1e-5, atol=1e-6)


def test_signals_pair_the_reduced_models_inputs_with_the_original_outputs():
    params, layers, data = parameters(), systems(), split()
    reduced = embed(layers[0], truncate(layers[0], np.array([[0, 3]])))
    found = list(layer_signals(forward(Counted()), params, layers, (reduced, layers[1]), 1, data.batches(23)))
    u, target, weights = found[0]
    original = plain_inputs(params, layers, data.x)[1]
    np.testing.assert_allclose(u, plain_inputs(params, (reduced,), data.x)[1], atol=1e-5)
    np.testing.assert_allclose(target, recurrence(layers[1], original), atol=1e-4)
    np.testing.assert_array_equal(weights, 1)
    np.testing.assert_allclose(
        engine_of(layers[1]).output(layers[1], original), recurrence(layers[1], original), atol=1e-10
    )


def layer_error(params, layers, reductions, data):
    """Error of the second layer's output in the reduced model, relative to the original output."""
    reduced = tuple(reduction.system for reduction in reductions)
    target = recurrence(layers[1], plain_inputs(params, layers, data.x)[1])
    got = recurrence(reduced[1], plain_inputs(params, reduced, data.x)[1])
    return ((got - target) ** 2).sum() / (target**2).sum()


def test_sequential_refit_makes_good_what_the_upstream_layer_lost():
    params, layers, data, model = parameters(), systems(), split(n=60), Counted()
    keeps = [np.array([[0, 3]]), np.array([[1, 2, 4]])]
    batches = data.batches(20)
    moments = collect_moments(forward(Counted()), params, layers, batches)
    plain = [refit(system, kept, m) for system, kept, m in zip(layers, keeps, moments)]
    found = sequential_refit(forward(model), params, layers, keeps, batches)
    assert model.traces == 1
    assert layer_error(params, layers, found, data) < layer_error(params, layers, plain, data)
    assert residual(layers[0], found[0], moments[0]) == pytest.approx(residual(layers[0], plain[0], moments[0]))
    np.testing.assert_array_equal(found[1].kept, keeps[1])


def refitted(system, signals, reselect=False):
    moments = partial(signal_moments, system, lambda batches: batches, signals)
    return refit_on_signals(system, np.array([[0, 3]]), moments, lambda: signals, reselect, None)


def test_states_chosen_anew_on_the_signals_are_no_worse():
    params, layers, data = parameters(), systems(), split(n=60)
    signals = list(layer_signals(forward(Counted()), params, layers, layers, 0, data.batches(20)))
    moments = collect_moments(forward(Counted()), params, layers, data.batches(20))[0]
    given, chosen = (refitted(layers[0], signals, reselect) for reselect in (False, True))
    np.testing.assert_array_equal(given.kept, [[0, 3]])
    assert chosen.kept.shape == (1, 2)
    assert not np.array_equal(chosen.kept, given.kept)
    assert residual(layers[0], chosen, moments) < residual(layers[0], given, moments)


def test_batches_may_come_from_a_generator():
    params, layers = parameters(), systems()
    keeps = [np.array([[0, 3]]), np.array([[1, 2, 4]])]
    found = sequential_refit(forward(Counted()), params, layers, keeps, (b for b in split().batches(8)))
    again = sequential_refit(forward(Counted()), params, layers, keeps, split().batches(8))
    np.testing.assert_allclose(found[1].system.C, again[1].system.C)


def test_progress_reaches_the_end():
    seen = []
    collect_moments(forward(Counted()), parameters(), systems(), split().batches(8),
                    progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]
    keeps = [np.array([[0]]), np.array([[1]])]
    seen.clear()
    sequential_refit(forward(Counted()), parameters(), systems(), keeps, split().batches(8),
                     progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert seen == [(k, 6) for k in range(1, 7)]


def test_no_examples_are_refused():
    with pytest.raises(InputError, match="no examples"):
        collect_moments(forward(Counted()), parameters(), systems(), [])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_targets_that_are_not_finite_are_refused_where_they_count(value):
    u = np.random.default_rng(0).standard_normal((3, 5, 4))
    target, weights = np.zeros((3, 5, 4)), np.ones((3, 5))
    target[1, 2, 3] = value
    with pytest.raises(InputError, match="inputs or outputs that are not finite"):
        refitted(systems()[0], [(u, target, weights)])
    weights[1, 2] = 0
    assert np.isfinite(refitted(systems()[0], [(u, target, weights)]).system.C).all()


def test_processes_take_batches_of_any_iterable_in_turn(monkeypatch):
    monkeypatch.setattr(calibration.processes, "count", lambda: 2)
    monkeypatch.setattr(calibration.processes, "index", lambda: 1)
    assert list(calibration._own(iter("abcde"))) == ["b", "d"]


def test_moments_of_processes_are_averaged_by_their_weights_and_what_none_has_stays_none():
    parts = [
        SelectiveMoments(np.full((1, 2), value), np.zeros(3), np.zeros((2, 1, 2)), np.asarray(weight))
        for value, weight in ((2.0, 3.0), (6.0, 1.0))
    ]
    whole = calibration._whole(parts)
    np.testing.assert_allclose(whole.contribution, [[3, 3]])
    assert whole.weight == 4
    assert whole.gram is None


def test_padding_and_padded_examples_do_not_count():
    batch = split(3, lengths=np.array([2, 9, 4])).batch(0, 4)
    assert counted_steps(batch, 4, 9, systems()).sum(1).tolist() == [2, 9, 4, 0]
    # an architecture that pools in time hands its layers fewer steps, of which nobody knows the true number
    assert counted_steps(batch, 4, 5, systems()).sum(1).tolist() == [5, 5, 5, 0]
    pair = split(2, x=np.zeros((2, 2, 9, 2), np.float32), lengths=np.array([[1, 2], [3, 4]])).batch(0, 3)
    # all first documents, then all second ones
    assert counted_steps(pair, 6, 9, systems()).sum(1).tolist() == [1, 3, 0, 2, 4, 0]


def test_padding_counts_where_a_backward_scan_reads_it():
    batch = split(2, length=5, lengths=np.array([2, 5])).batch(0, 3)
    one_way = systems()[0]
    both_ways = one_way.replace(C=np.repeat(one_way.C, 2, axis=1))
    assert both_ways.bidirectional
    np.testing.assert_array_equal(counted_steps(batch, 3, 5, [one_way]).sum(axis=1), [2, 5, 0])
    np.testing.assert_array_equal(counted_steps(batch, 3, 5, [one_way, both_ways]).sum(axis=1), [5, 5, 0])
