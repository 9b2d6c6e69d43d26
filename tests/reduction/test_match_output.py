import numpy as np
import pytest

from lastcli.engine.reductions import truncate
from lastcli.reduction.match_output import match_output
from tests.evaluation.models import Counted, forward, parameters, reference, split, systems


def log_probabilities(outputs):
    outputs = outputs - outputs.max(axis=-1, keepdims=True)
    return outputs - np.log(np.exp(outputs).sum(axis=-1, keepdims=True))


def divergence(params, layers, reduced, data):
    """Mean Kullback-Leibler divergence of the class probabilities, by a plain recurrence."""
    p = log_probabilities(reference(params, layers, data.x, data.lengths))
    q = log_probabilities(reference(params, reduced, data.x, data.lengths))
    return (np.exp(p) * (p - q)).sum(axis=-1).mean()


def reduced_of(layers):
    return [truncate(system, np.array([[0, 2, 4]])).system for system in layers]


@pytest.mark.parametrize("padded", [False, True])
def test_outputs_come_closer_on_data_not_seen(padded):
    lengths = np.random.default_rng(0).integers(4, 10, 60) if padded else None
    params, layers, data = parameters(), systems(), split(n=60, lengths=lengths, y=None)
    start, seen = reduced_of(layers), []
    found = match_output(
        forward(Counted()), params, start, layers, data.batches(16), steps=150,
        progress=lambda *state: seen.append(state),
    )  # fmt: skip
    fresh = split(n=60, seed=9)
    assert divergence(params, layers, found, fresh) < 0.5 * divergence(params, layers, start, fresh)
    for system in found:
        assert (np.abs(system.poles) < 1).all()
        assert system.poles.dtype == np.complex128
        assert system.D is None
    assert seen[-1] == (150, 150)


@pytest.mark.parametrize("step", [1, 4])
def test_sequences_of_outputs_are_matched_at_every_step_that_has_one(step):
    params, layers, data = parameters(), systems(), split(n=2, length=60)
    start = reduced_of(layers)
    found = match_output(
        forward(Counted(sequence=True, step=step), "regression"), params, start, layers, data.batches(2), steps=100
    )

    def error(reduced):
        target, got = (reference(params, s, data.x, sequence=True)[:, step - 1 :: step] for s in (layers, reduced))
        return ((got - target) ** 2).sum() / target.var()

    assert error(found) < 0.5 * error(start)


def test_never_worse_than_the_start():
    params, layers, data = parameters(), systems(), split(n=20)
    start = list(layers)
    found = match_output(forward(Counted()), params, start, layers, data.batches(20), steps=50, learning_rate=1.0)
    assert all(one is other for one, other in zip(found, start))


def test_the_same_seed_gives_the_same_systems():
    params, layers, data = parameters(), systems(), split(n=20)
    once, again = (
        match_output(forward(Counted()), params, reduced_of(layers), layers, data.batches(20), steps=25, seed=3)
        for _ in range(2)
    )
    np.testing.assert_array_equal(once[0].poles, again[0].poles)
