"""Fit the reduced layers of a model to the original model's outputs, end to end and without labels.

What the layers lost one by one adds up differently at the output than in any layer's own error. Here the original
model is the teacher: poles (stable by construction), B, C and D of all reduced layers are moved together to reproduce
its outputs, every other tensor stays as it is. A calibration split is small, so the teacher is also asked about
sequences that are not in it: splices and mixtures of two of its sequences (mixup, Zhang et al., arXiv 1710.09412). A
held-back part of the split decides which systems are returned; the start is one of the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import System, Variables
from lastcli.evaluation.passes import precision_of
from lastcli.families.base import Forward
from lastcli.parallel import devices
from lastcli.reduction.divergence import divergence_of
from lastcli.reduction.lessons import Lesson, Lessons
from lastcli.reduction.unfinished import Unfinished, identity_of

__all__ = ["match_output"]

Array = Any
Values = list[dict[str, Array]]
Progress = Callable[[int, int, float], None]

_CHECK_EVERY = 25
_RATES = (3e-3, 1e-2, 3e-2)


def match_output(
    lessons: Lessons,
    reduced: Sequence[System],
    *,
    steps: int = 600,
    learning_rate: float | None = None,
    patience: int = 200,
    progress: Progress | None = None,
    unfinished: Unfinished | None = None,
) -> list[System]:
    """The reduced systems, fitted to the original model's outputs; never worse on the held-back part than they were.

    The error is the Kullback-Leibler divergence of the class probabilities for classification, and the mean squared
    error relative to the variance of the original's outputs for regression. Layers are padded with states that do
    nothing, so that reductions of about one size share a compiled step.

    Args:
        lessons: what they are fitted on; students of one teacher share them, and what is compiled for them.
        reduced: the reduced layers, NumPy float64.
        steps: most Adam steps, on minibatches of 64 sequences.
        learning_rate: Adam's, in units of each layer's own parameters; falls to zero over `steps`. None tries several
            for a tenth of the steps each, and goes on with the one whose held-back error is smallest.
        patience: steps without a better held-back error after which it stops.
        progress: called with (steps done, `steps`, the held-back error so far).
        unfinished: where the descent is kept, and taken up again.
    """
    forward = lessons.forward
    layers = [engine_of(system).variables(system) for system in reduced]
    rates = _RATES if learning_rate is None else (learning_rate,)
    real = np.dtype(forward.precision)
    with precision_of(forward):
        wide = devices.copies_of(tuple(layer.padded() for layer in layers), lessons.replicated)
        zeros = [{name: np.zeros(zero.shape, real) for name, zero in layer.start.items()} for layer in wide]
        optimisers = [_adam(rate, steps) for rate in rates]
        fitting = _Fitting(lessons, wide, _programs(forward, lessons.replicated, steps))
        # placed as the step places its results, or the second step would be compiled anew
        values, *states = devices.copies_of((zeros, *(one.init(zeros) for one in optimisers)), lessons.replicated)
        start = fitting.held_error(values)
        runs = [_Run(values, state, start) for state in states]
        keep = _Kept(unfinished, _name(lessons, reduced, steps, rates, patience), runs)
        keep.read()
        trial = steps if len(runs) == 1 else max(steps // 10 // _CHECK_EVERY, 1) * _CHECK_EVERY
        for run in runs:
            _advance(run, fitting, min(trial, steps), steps, patience, keep, None)
        chosen = min(runs, key=lambda run: run.trial_error)
        if progress is not None:
            progress(chosen.done, steps, chosen.best_error)
        _advance(chosen, fitting, steps, steps, patience, keep, progress)
        keep.write(done=True)
    best = chosen.best
    return list(reduced) if best is None else [_stored(layer, value) for layer, value in zip(layers, best)]


@dataclass
class _Run:
    """One descent: where it is, and the best it has seen.

    Attributes:
        values: of every layer.
        state: the optimiser's.
        best_error: on the held-back sequences, of `best`; of the start at first.
        best: None where nothing was better than the start.
        done, since: steps done, and since the last better one.
        trial_error: the best error when its trial was over, by which one of several is chosen.
    """

    values: Values
    state: Any
    best_error: float
    best: Values | None = None
    done: int = 0
    since: int = 0
    trial_error: float = np.inf


def _advance(
    run: _Run,
    fitting: _Fitting,
    until: int,
    steps: int,
    patience: int,
    keep: _Kept,
    progress: Progress | None,
) -> None:
    while run.done < until and run.since < patience:
        run.values, run.state = fitting.step(run.values, run.state, run.done)
        run.done += 1
        if run.done % _CHECK_EVERY and run.done != until:
            continue
        error = fitting.held_error(run.values)
        if error < run.best_error:
            run.best, run.best_error, run.since = run.values, error, 0
        else:
            run.since += _CHECK_EVERY
        keep.write(done=False)
        if progress is not None:
            progress(run.done, steps, run.best_error)
    if run.trial_error == np.inf:
        run.trial_error = run.best_error


class _Kept:
    """The descents of one student, in a file or nowhere."""

    def __init__(self, unfinished: Unfinished | None, name: Callable[[], str], runs: Sequence[_Run]):
        self._unfinished, self._runs = unfinished, runs
        self._name = "" if unfinished is None else name()

    def read(self) -> None:
        """Put every descent where it was."""
        found = None if self._unfinished is None else self._unfinished.read(self._name, self._arrays)
        if found is None:
            return
        for number, run in enumerate(self._runs):
            mine = {key.partition(".")[2]: array for key, array in found.items() if key.startswith(f"{number}.")}
            like = (run.values, run.state, run.values)
            leaves, form = jax.tree.flatten(like)
            placed = [jax.device_put(mine[str(i)], leaf.sharding) for i, leaf in enumerate(leaves)]
            run.values, run.state, best = jax.tree.unflatten(form, placed)
            run.best_error, run.trial_error, done, since, has = (float(value) for value in mine["where"])
            run.done, run.since, run.best = int(done), int(since), best if has else None

    def write(self, *, done: bool) -> None:
        """Keep where every descent is."""
        if self._unfinished is not None:
            self._unfinished.write(self._name, self._arrays, done=done)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for number, run in enumerate(self._runs):
            has = run.best is not None
            leaves = jax.tree.leaves((run.values, run.state, run.best if has else run.values))
            arrays |= {f"{number}.{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
            where = (run.best_error, run.trial_error, run.done, run.since, has)
            arrays[f"{number}.where"] = np.array(where, np.float64)
        return arrays


def _name(
    lessons: Lessons, reduced: Sequence[System], steps: int, rates: Sequence[float], patience: int
) -> Callable[[], str]:
    return lambda: identity_of(lessons, [*reduced, np.array([steps, *rates, patience], np.float64)])


def _systems(layers: Sequence[Variables], values: Values) -> tuple[System, ...]:
    return tuple(layer.system(value) for layer, value in zip(layers, values))


def _stored(layer: Variables, value: dict[str, Array]) -> System:
    """The system as the engine keeps it, unpadded: NumPy float64 (the values of the search, not rounded once more)."""
    own = {name: np.asarray(value[name])[tuple(map(slice, zero.shape))] for name, zero in layer.start.items()}
    with jax.enable_x64(True):
        system = layer.system({name: jnp.asarray(np.asarray(array, np.float64)) for name, array in own.items()})
        return jax.tree.map(np.asarray, system)


@dataclass(frozen=True)
class _Programs:
    """The compiled step and the compiled held-back error of one model, whatever its layers are reduced to."""

    advance: Callable[..., Any]
    error: Callable[..., Any]


@lru_cache(maxsize=8)
def _programs(forward: Forward, replicated: Any, steps: int) -> _Programs:
    """The programs for students of one model, whatever their teachers, stages and ratios."""
    optimiser = _adam(_RATES[0], steps)
    divergence = divergence_of(forward.task)
    compare = _squared_error if divergence is None else partial(_divergence, divergence)

    def error(params: Any, layers: Any, values: Values, lesson: Any) -> tuple[Array, Array]:
        x, lengths, weights, wanted = lesson
        got = forward.apply(params, _systems(layers, values), x, lengths)[0]
        each = weights[:, forward.output_step - 1 :: forward.output_step]
        return compare(wanted, got, each if forward.sequence else weights.max(axis=1))

    def advance(params: Any, layers: Any, values: Values, state: Any, lesson: Any) -> tuple[Values, Any]:
        def loss(values: Values) -> Array:
            total, scale = error(params, layers, values, lesson)
            return total / scale

        gradient = jax.grad(loss)(values)
        # optax multiplies floats by its int32 count of steps, which a strict JAX refuses
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(values, updates), state

    return _Programs(jax.jit(advance, out_shardings=replicated), jax.jit(error, out_shardings=replicated))


@dataclass(frozen=True)
class _Fitting:
    """One student: its padded layers, and the programs that move them. JAX sums the gradients of all devices."""

    lessons: Lessons
    layers: tuple[Variables, ...]
    programs: _Programs

    def step(self, values: Values, state: Any, number: int) -> tuple[Values, Any]:
        """One step on the minibatch of this number."""
        lesson = self.lessons.minibatch(number)
        return self.programs.advance(self.lessons.params, self.layers, values, state, _arrays(lesson))

    def held_error(self, values: Values) -> float:
        """The error at these values on the held-back sequences; infinite where it is not finite."""
        total = scale = 0.0
        for lesson in self.lessons.examination():
            sums = self.programs.error(self.lessons.params, self.layers, values, _arrays(lesson))
            total, scale = total + float(sums[0]), scale + float(sums[1])
        return total / scale if np.isfinite(total) and scale > 0 else np.inf


def _arrays(lesson: Lesson) -> tuple[Array, Array | None, Array, Array]:
    return lesson.x, lesson.lengths, lesson.weights, lesson.wanted


def _divergence(
    of_answers: Callable[[Array, Array], Array], wanted: Array, got: Array, weights: Array
) -> tuple[Array, Array]:
    """Sum of the Kullback-Leibler divergences, and how many there are."""
    return (weights * of_answers(wanted, got)).sum(), weights.sum()


def _squared_error(wanted: Array, got: Array, weights: Array) -> tuple[Array, Array]:
    """Sum of squared errors, and the sum of squares of the original's outputs around their mean."""
    weights = weights[..., None]
    axes = tuple(range(wanted.ndim - 1))
    mean = (weights * wanted).sum(axis=axes, keepdims=True) / weights.sum()
    spread = (weights * (wanted - mean) ** 2).sum()
    return (weights * (got - wanted) ** 2).sum(), spread + 1e-12


def _adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, arXiv 1412.6980), its rate falling to zero as a half cosine over `steps`.

    A gradient that is not finite moves nothing. The rate lies in the state, so that one compiled step serves several.
    """

    def at(rate: Array) -> optax.GradientTransformation:
        adam = optax.adam(lambda count: rate * optax.cosine_decay_schedule(1.0, steps)(count))
        return optax.apply_if_finite(adam, max_consecutive_errors=steps)

    return optax.inject_hyperparams(at)(rate=learning_rate)
