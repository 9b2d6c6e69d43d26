"""Fit the reduced layers of a model to the original model's outputs, end to end and without labels.

What the layers lost one by one adds up differently at the output than in any layer's own error. Here the original
model is the teacher: poles (stable by construction), B, C and D of all reduced layers are moved together to reproduce
its outputs, every other tensor stays as it is. A calibration split is small, so the teacher is also asked about
sequences that are not in it: splices and mixtures of two of its sequences (mixup, Zhang et al., arXiv 1710.09412). A
held-back part of the split decides which systems are returned; the start is one of the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import System, Variables
from lastcli.evaluation.data import Batches
from lastcli.evaluation.passes import computable, in_precision, precision_of
from lastcli.families.base import Forward
from lastcli.parallel import devices
from lastcli.reduction.calibration import Progress
from lastcli.reduction.divergence import divergence_of
from lastcli.reduction.sequences import Sequences, Source, divide, minibatch, source_of

__all__ = ["match_output"]

Array = Any
Values = list[dict[str, Array]]

_BATCH = 64
_CHECK_EVERY = 25
_RATES = (3e-3, 1e-2, 3e-2)


def match_output(
    forward: Forward,
    params: Mapping[str, np.ndarray],
    reduced: Sequence[System],
    teacher: Sequence[System],
    batches: Batches,
    *,
    steps: int = 600,
    held_back: float = 0.2,
    learning_rate: float | None = None,
    patience: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[System]:
    """The reduced systems, fitted to the original model's outputs; never worse on the held-back part than they were.

    The error is the Kullback-Leibler divergence of the class probabilities for classification, and the mean squared
    error relative to the variance of the original's outputs for regression.

    Args:
        forward: the architecture.
        params: {tensor name: array} of the tensors `forward` needs; they are not changed.
        reduced: the reduced layers, NumPy float64.
        teacher: the original layers.
        batches: inputs; labels are not looked at.
        steps: most Adam steps, on minibatches of 64 sequences.
        held_back: share of the sequences that only decide what is returned; of fewer than five sequences with an
            output at every step, the share of the last steps.
        learning_rate: Adam's, in units of each layer's own parameters; falls to zero over `steps`. None tries several
            for a tenth of the steps each, and goes on with the one whose held-back error is smallest.
        patience: steps without a better held-back error after which it stops.
        seed: of the minibatches, their splices and mixtures.
        progress: called with (steps done, `steps`).

    Raises:
        InputError: too few sequences to hold any back.
    """
    fit, held = divide(source_of(batches, pair=forward.layout != "single"), held_back, by_time=forward.sequence)
    layers = [engine_of(system).variables(system) for system in reduced]
    rates = _RATES if learning_rate is None else (learning_rate,)
    real = np.dtype(forward.precision)
    with precision_of(forward):
        zeros = [{name: np.zeros(zero.shape, real) for name, zero in layer.start.items()} for layer in layers]
        optimisers = [_adam(rate, steps) for rate in rates]
        fitting = _Fitting.of(forward, computable(forward, params), layers, teacher, optimisers[0])
        start = fitting.held_error(in_precision(forward, reduced), held)
        # as NumPy arrays, which any number of processes may hand to one program
        runs = [
            _Run(zeros, jax.tree.map(np.asarray, one.init(zeros)), start, random=np.random.default_rng(seed))
            for one in optimisers
        ]
        trial = steps if len(runs) == 1 else max(steps // 10 // _CHECK_EVERY, 1) * _CHECK_EVERY
        for run in runs:
            _advance(run, fitting, layers, fit, held, min(trial, steps), steps, patience, None)
        chosen = min(runs, key=lambda run: run.best_error)
        if progress is not None:
            progress(chosen.done, steps)
        _advance(chosen, fitting, layers, fit, held, steps, steps, patience, progress)
    best = chosen.best
    return list(reduced) if best is None else [_stored(layer, value) for layer, value in zip(layers, best)]


@dataclass
class _Run:
    """One descent: where it is, and the best it has seen.

    Attributes:
        values: of every layer.
        state: the optimiser's.
        best_error: on the held-back sequences, of `best`; of the start at first.
        random: draws the minibatches.
        best: None where nothing was better than the start.
        done, since: steps done, and since the last better one.
    """

    values: Values
    state: Any
    best_error: float
    random: np.random.Generator
    best: Values | None = None
    done: int = 0
    since: int = 0


def _advance(
    run: _Run,
    fitting: _Fitting,
    layers: Sequence[Variables],
    fit: Source,
    held: Source,
    until: int,
    steps: int,
    patience: int,
    progress: Progress | None,
) -> None:
    while run.done < until and run.since < patience:
        run.values, run.state = fitting.step(run.values, run.state, minibatch(fit, _BATCH, run.random))
        run.done += 1
        if run.done % _CHECK_EVERY and run.done != until:
            continue
        error = fitting.held_error(_systems(layers, run.values), held)
        if error < run.best_error:
            run.best, run.best_error, run.since = run.values, error, 0
        else:
            run.since += _CHECK_EVERY
        if progress is not None:
            progress(run.done, steps)


def _systems(layers: Sequence[Variables], values: Values) -> tuple[System, ...]:
    return tuple(layer.system(value) for layer, value in zip(layers, values))


def _stored(layer: Variables, value: dict[str, Array]) -> System:
    """The system as the engine keeps it: NumPy float64 (the values of the search, not rounded once more)."""
    with jax.enable_x64(True):
        system = layer.system({name: jnp.asarray(np.asarray(array, np.float64)) for name, array in value.items()})
        return jax.tree.map(np.asarray, system)


@dataclass(frozen=True)
class _Fitting:
    """The compiled step and the compiled held-back error of one model, its sequences spread over all devices.

    The devices of all processes are one mesh: JAX sums the gradients of their sequences.
    """

    advance: Callable[..., Any]
    error: Callable[..., Any]
    spread: NamedSharding

    @classmethod
    def of(
        cls,
        forward: Forward,
        params: Mapping[str, np.ndarray],
        layers: Sequence[Variables],
        teacher: Sequence[System],
        optimiser: optax.GradientTransformation,
    ) -> _Fitting:
        original = in_precision(forward, teacher)
        divergence = divergence_of(forward.task)
        compare = _squared_error if divergence is None else partial(_divergence, divergence)

        def error(systems: Any, x: Array, lengths: Array | None, weights: Array) -> tuple[Array, Array]:
            wanted = jax.lax.stop_gradient(forward.apply(params, original, x, lengths)[0])
            got = forward.apply(params, systems, x, lengths)[0]
            each = weights[:, forward.output_step - 1 :: forward.output_step]
            return compare(wanted, got, each if forward.sequence else weights.max(axis=1))

        def advance(values: Values, state: Any, data: Any) -> tuple[Values, Any]:
            def loss(values: Values) -> Array:
                total, scale = error(_systems(layers, values), *data)
                return total / scale

            gradient = jax.grad(loss)(values)
            # optax multiplies floats by its int32 count of steps, which a strict JAX refuses
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimiser.update(gradient, state)
            return optax.apply_updates(values, updates), state

        replicated, spread = devices.shardings(devices.joint_mesh())
        return cls(jax.jit(advance, out_shardings=replicated), jax.jit(error, out_shardings=replicated), spread)

    def _placed(self, part: Sequences) -> tuple[Any, Any, Any]:
        """x, lengths and weights on the devices, behind them copies of weight 0 where they do not come out even."""
        count = len(part.x)
        rows = np.arange(-(-count // self.spread.num_devices) * self.spread.num_devices) % count
        weights = part.weights[rows]
        weights[count:] = 0
        arrays = (part.x[rows], None if part.lengths is None else part.lengths[rows], weights)
        x, lengths, counted = (None if a is None else devices.rows_of(a, self.spread) for a in arrays)
        return x, lengths, counted

    def step(self, values: Values, state: Any, batch: Sequences) -> tuple[Values, Any]:
        """One step on a minibatch."""
        return self.advance(values, state, self._placed(batch))

    def held_error(self, systems: Sequence[System], held: Source) -> float:
        """The error of a model on the held-back sequences; infinite where it is not finite."""
        total = scale = 0.0
        for part in held.parts(_BATCH):
            sums = self.error(tuple(systems), *self._placed(part))
            total, scale = total + float(sums[0]), scale + float(sums[1])
        return total / scale if np.isfinite(total) and scale > 0 else np.inf


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
