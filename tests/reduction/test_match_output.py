import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lastcli.engine.reductions import truncate
from lastcli.engine.variables import layer_variables
from lastcli.errors import InputError
from lastcli.evaluation.data import Split
from lastcli.reduction import match_output as matching
from lastcli.reduction.lessons import Lessons
from lastcli.reduction.match_output import match_output
from lastcli.reduction.sequences import divide, minibatch, source_of
from lastcli.reduction.unfinished import identity_of
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
        Lessons(forward(Counted()), params, layers, data.batches(16)), start, steps=150,
        progress=lambda *state: seen.append(state),
    )  # fmt: skip
    fresh = split(n=60, seed=9)
    assert divergence(params, layers, found, fresh) < 0.5 * divergence(params, layers, start, fresh)
    for system in found:
        assert (np.abs(system.poles) < 1).all()
        assert system.poles.dtype == np.complex128
        assert system.D is None
    assert seen[-1][:2] == (150, 150)
    errors = [error for _, _, error in seen]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("step", [1, 4])
def test_sequences_of_outputs_are_matched_at_every_step_that_has_one(step):
    params, layers, data = parameters(), systems(), split(n=2, length=60)
    start = reduced_of(layers)
    model = forward(Counted(sequence=True, step=step), "regression")
    found = match_output(Lessons(model, params, layers, data.batches(2)), start, steps=100)

    def error(reduced):
        target, got = (reference(params, s, data.x, sequence=True)[:, step - 1 :: step] for s in (layers, reduced))
        return ((got - target) ** 2).sum() / target.var()

    assert error(found) < 0.5 * error(start)


def test_never_worse_than_the_start():
    params, layers, data = parameters(), systems(), split(n=20)
    start = list(layers)
    lessons = Lessons(forward(Counted()), params, layers, data.batches(20))
    found = match_output(lessons, start, steps=50, learning_rate=1.0)
    assert all(one is other for one, other in zip(found, start))


def test_the_same_seed_gives_the_same_systems():
    params, layers, data = parameters(), systems(), split(n=20)
    once, again = (
        match_output(
            Lessons(forward(Counted()), params, layers, data.batches(20), seed=3), reduced_of(layers), steps=25
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(once[0].poles, again[0].poles)


def adam_by_hand(gradients, learning_rate, steps):
    """Kingma and Ba, algorithm 1, in float64, the rate of step t (from 1) being the half cosine at (t - 1)/steps."""
    value, m, v, taken = np.zeros_like(gradients[0]), 0.0, 0.0, 0
    for g in gradients:
        if not np.isfinite(g).all():
            continue
        rate = learning_rate * (1 + np.cos(np.pi * taken / steps)) / 2
        taken += 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        value = value - rate * (m / (1 - 0.9**taken)) / (np.sqrt(v / (1 - 0.999**taken)) + 1e-8)
    return value


@pytest.mark.parametrize("spoilt", [(), (0,), (3, 4, 19)])
def test_the_optimiser_is_adam_and_gradients_that_are_not_finite_move_nothing(spoilt):
    gradients = np.random.default_rng(5).standard_normal((20, 6)) * np.geomspace(1e-6, 1e3, 6)
    for step in spoilt:
        gradients[step, step % 6] = np.nan if step % 2 else np.inf
    optimiser = matching._adam(0.01, 20)
    values, state = jnp.zeros(6), None
    state = optimiser.init(values)
    for gradient in gradients.astype(np.float32):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradient, state)
        values = values + updates
    np.testing.assert_allclose(values, adam_by_hand(gradients, 0.01, 20), rtol=2e-4, atol=1e-6)


def test_the_steps_are_those_of_adam_on_the_divergence():
    """Three whole steps against gradients by central differences in float64 and Adam by hand."""
    params, layers = parameters(), systems()
    data, steps = split(n=8, y=None), 3
    start = [truncate(system, np.array([[1]])).system for system in layers]
    free = [layer_variables(system) for system in start]
    fit, _ = divide(source_of(data.batches(8)), 0.2, by_time=False)
    shapes = [{name: zero.shape for name, zero in layer.start.items()} for layer in free]
    size = sum(int(np.prod(shape)) for layer in shapes for shape in layer.values())

    def unpacked(flat):
        values, at = [], 0
        for layer in shapes:
            values.append({})
            for name, shape in layer.items():
                count = int(np.prod(shape))
                values[-1][name], at = flat[at : at + count].reshape(shape), at + count
        return values

    def reduced_at(flat):
        with jax.enable_x64(True):
            return [jax.tree.map(np.asarray, layer.system(value)) for layer, value in zip(free, unpacked(flat))]

    gradients, flat = [], np.zeros(size)
    for number in range(steps):
        batch = minibatch(fit, 64, np.random.default_rng((0, number)))

        def loss(flat, x=batch.x):
            return divergence(params, layers, reduced_at(flat), SimpleNamespace(x=x, lengths=None))

        eye = 1e-5 * np.eye(size)
        gradients.append(np.array([(loss(flat + step) - loss(flat - step)) / 2e-5 for step in eye]))
        flat = adam_by_hand(gradients, 0.02, steps)
    lessons = Lessons(forward(Counted()), params, layers, data.batches(8))
    found = match_output(lessons, start, steps=steps, learning_rate=0.02)
    for one, expected, before in zip(found, reduced_at(flat), start):
        assert not np.allclose(one.poles, before.poles, atol=1e-3)
        np.testing.assert_allclose(one.poles, expected.poles, atol=2e-5)
        np.testing.assert_allclose(one.C, expected.C, atol=2e-5)
        np.testing.assert_allclose(one.B, expected.B, atol=2e-5)


def test_students_of_about_one_size_share_their_programs():
    params, layers, data = parameters(), systems(), split(n=20)
    model = Counted()
    lessons = Lessons(forward(model), params, layers, data.batches(20))
    kept = ([[0, 2, 4]], [[1, 3]], [[5]])
    found = [
        match_output(lessons, [truncate(system, np.array(keep)).system for system in layers], steps=25) for keep in kept
    ]
    assert [system.states for one in found for system in one] == [3, 3, 2, 2, 1, 1]
    # the teacher for minibatches and for what is held back, the step and the held-back error: each traced once
    assert model.traces == 4
    again = Lessons(lessons.forward, params, layers, data.batches(20), seed=1)
    match_output(again, [truncate(system, np.array([[0, 1]])).system for system in layers], steps=25)
    assert model.traces == 4


def test_the_teacher_answers_a_minibatch_once():
    params, layers, data = parameters(), systems(), split(n=20)
    lessons = Lessons(forward(Counted()), params, layers, data.batches(20), seed=1)
    once, again, other = lessons.minibatch(3), lessons.minibatch(3), lessons.minibatch(4)
    assert again.wanted is once.wanted
    np.testing.assert_array_equal(again.x, once.x)
    assert not np.array_equal(once.x, other.x)
    np.testing.assert_allclose(once.wanted, reference(params, layers, np.asarray(once.x)), rtol=1e-4, atol=1e-5)


class Interrupted(Exception):
    """Somebody stops the run."""


class Kept(dict):
    """Descents in memory, as `Unfinished`."""

    def read(self, name, like):
        return self.get(name)

    def write(self, name, arrays, *, done):
        self[name] = arrays()


@pytest.mark.parametrize("stopped_after", [30, 60, 110, 140])
def test_what_was_interrupted_goes_on_to_the_very_same_systems(stopped_after, monkeypatch):
    params, layers, data = parameters(), systems(), split(n=20)
    taken, kept, real = [], Kept(), matching._Fitting.step

    def step(fitting, values, state, number):
        if len(taken) == limit:
            raise Interrupted
        taken.append(number)
        return real(fitting, values, state, number)

    def fitted(unfinished=None):
        taken.clear()
        lessons = Lessons(forward(Counted()), params, layers, data.batches(20))
        return match_output(lessons, reduced_of(layers), steps=250, patience=100, unfinished=unfinished)

    monkeypatch.setattr(matching._Fitting, "step", step)
    limit = None
    whole = fitted()
    total, limit = len(taken), stopped_after
    assert total > limit
    with pytest.raises(Interrupted):
        fitted(kept)
    limit = None
    again = fitted(kept)
    # it is kept at every look at the held-back part
    assert len(taken) == total - limit_of(stopped_after)
    for one, other in zip(whole, again):
        np.testing.assert_array_equal(one.poles, other.poles)
        np.testing.assert_array_equal(one.C, other.C)
    finished = fitted(kept)
    assert taken == []
    np.testing.assert_array_equal(finished[0].poles, whole[0].poles)


def limit_of(stopped_after):
    return stopped_after // 25 * 25


@pytest.mark.parametrize("change", ["a sequence", "its length", "the description", "the task"])
def test_other_data_and_another_model_begin_anew(change):
    """Whatever minibatch 0 holds: a change anywhere in the calibration inputs makes another descent."""
    params, layers, data, model = parameters(), systems(), split(n=200), forward(Counted())
    x = data.x.copy()
    one = Lessons(model, params, layers, data.batches(20), description="a")
    drawn = one.drawn(0).x
    lengths = np.full(200, x.shape[1])
    if change == "a sequence":
        unseen = next(i for i in one.held.index if not (drawn == x[i]).all(axis=(1, 2)).any())
        x[unseen, -1] += 1
    elif change == "its length":
        lengths[one.held.index[0]] -= 1
    elif change == "the task":
        model = dataclasses.replace(model, task="multilabel")
    changed = dataclasses.replace(data, x=x, lengths=lengths if change == "its length" else data.lengths)
    other = Lessons(model, params, layers, changed.batches(20), description="b" if "desc" in change else "a")
    start, again = reduced_of(layers), Lessons(one.forward, params, layers, data.batches(20), description="a")
    assert identity_of(one, start) == identity_of(again, start)
    assert identity_of(one, start) != identity_of(other, start)


def test_a_held_back_part_without_an_output_is_refused():
    model = dataclasses.replace(forward(Counted()), sequence=True, output_step=8)
    data = Split(np.zeros((2, 12, 3), np.float32))
    with pytest.raises(InputError, match="none of them has an output"):
        Lessons(model, parameters(), systems(), data.batches(2))


def test_other_students_begin_anew():
    params, layers, data, kept = parameters(), systems(), split(n=20), Kept()
    for seed, states in ((0, [[0, 2]]), (1, [[0, 2]]), (0, [[1, 2]]), (0, [[0, 2]])):
        lessons = Lessons(forward(Counted()), params, layers, data.batches(20), seed=seed)
        start = [truncate(system, np.array(states)).system for system in layers]
        match_output(lessons, start, steps=25, learning_rate=0.01, unfinished=kept)
    assert len(kept) == 3
