"""Fit the reduced layers of a model to the original model's outputs, end to end and without labels.

What the layers lost one by one adds up differently at the output than in any layer's own error. Here the original
model is the teacher: poles (stable by construction), B, C and D of all reduced layers are moved together to reproduce
its outputs, every other tensor stays as it is. A calibration split is small, so the teacher is also asked about
sequences that are not in it: splices and mixtures of two of its sequences (mixup, Zhang et al., arXiv 1710.09412). A
held-back part of the split decides which systems are returned; the start is one of the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.embedding import as_precision
from lastcli.engine.system import DiagonalSystem
from lastcli.engine.variables import LayerVariables, layer_variables
from lastcli.evaluation.passes import precision_of
from lastcli.families.base import Forward
from lastcli.reduction.calibration import CalibrationBatch, Progress
from lastcli.reduction.sequences import Sequences, divide, load_sequences, minibatch

__all__ = ["match_output"]

Array = Any
Values = list[dict[str, Array]]

_BATCH = 64
_CHECK_EVERY = 25
_DECAY_1, _DECAY_2, _TINY = 0.9, 0.999, 1e-8


def match_output(
    forward: Forward,
    params: Mapping[str, np.ndarray],
    reduced: Sequence[DiagonalSystem],
    teacher: Sequence[DiagonalSystem],
    batches: Iterable[CalibrationBatch],
    *,
    steps: int = 600,
    held_back: float = 0.2,
    learning_rate: float = 1e-2,
    patience: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[DiagonalSystem]:
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
        learning_rate: Adam's, in units of each layer's own parameters; falls to zero over `steps`.
        patience: steps without a better held-back error after which it stops.
        seed: of the minibatches, their splices and mixtures.
        progress: called with (steps done, `steps`).

    Raises:
        InputError: too few sequences to hold any back.
    """
    sequences = load_sequences(batches, pair=forward.layout == "pair")
    fit, held = divide(sequences, held_back, by_time=forward.sequence)
    layers = [layer_variables(system) for system in reduced]
    real = np.dtype(forward.precision)
    with precision_of(forward):
        fitting = _Fitting.of(forward, params, layers, teacher)
        random = np.random.default_rng(seed)
        values = [{name: jnp.zeros(zero.shape, real) for name, zero in layer.start.items()} for layer in layers]
        moving = (jax.tree.map(jnp.zeros_like, values), jax.tree.map(jnp.zeros_like, values))
        best: Values | None = None
        best_error, since = fitting.held_error(_placed(reduced, real), held), 0
        for done in range(1, steps + 1):
            rate = 0.5 * learning_rate * (1 + np.cos(np.pi * (done - 1) / steps))
            values, moving = fitting.step(values, moving, minibatch(fit, _BATCH, random), done, rate)
            if done % _CHECK_EVERY and done != steps:
                continue
            error = fitting.held_error(_systems(layers, values), held)
            best, best_error, since = (
                (values, error, 0) if error < best_error else (best, best_error, since + _CHECK_EVERY)
            )
            if progress is not None:
                progress(done, steps)
            if since >= patience:
                break
    return list(reduced) if best is None else [_stored(layer, value) for layer, value in zip(layers, best)]


def _placed(systems: Sequence[DiagonalSystem], real: np.dtype[Any]) -> tuple[DiagonalSystem, ...]:
    return tuple(as_precision(system, real) for system in systems)


def _systems(layers: Sequence[LayerVariables], values: Values) -> tuple[DiagonalSystem, ...]:
    return tuple(layer.system(value) for layer, value in zip(layers, values))


def _stored(layer: LayerVariables, value: dict[str, Array]) -> DiagonalSystem:
    """The system as the engine keeps it: NumPy float64 (the values of the search, not rounded once more)."""
    with jax.enable_x64(True):
        system = layer.system({name: jnp.asarray(np.asarray(array, np.float64)) for name, array in value.items()})
        return jax.tree.map(np.asarray, system)


@dataclass(frozen=True)
class _Fitting:
    """The compiled step and the compiled held-back error of one model."""

    advance: Callable[..., Any]
    error: Callable[..., Any]

    @classmethod
    def of(
        cls,
        forward: Forward,
        params: Mapping[str, np.ndarray],
        layers: Sequence[LayerVariables],
        teacher: Sequence[DiagonalSystem],
    ) -> _Fitting:
        original = _placed(teacher, np.dtype(forward.precision))
        compare = _divergence if forward.task == "classification" else _squared_error

        def error(systems: Any, x: Array, lengths: Array | None, weights: Array) -> tuple[Array, Array]:
            wanted = jax.lax.stop_gradient(forward.apply(params, original, x, lengths)[0])
            got = forward.apply(params, systems, x, lengths)[0]
            each = weights[:, forward.output_step - 1 :: forward.output_step]
            return compare(wanted, got, each if forward.sequence else jnp.ones(len(got)))

        def advance(values: Values, moving: Any, data: Any, done: Array, rate: Array) -> tuple[Values, Any]:
            def loss(values: Values) -> Array:
                total, scale = error(_systems(layers, values), *data)
                return total / scale

            return _adam(values, moving, jax.grad(loss)(values), done, rate)

        return cls(jax.jit(advance), jax.jit(error))

    def step(self, values: Values, moving: Any, batch: Sequences, done: int, rate: float) -> tuple[Values, Any]:
        """One Adam step on a minibatch."""
        return self.advance(
            values, moving, (batch.x, batch.lengths, batch.weights), jnp.float32(done), jnp.float32(rate)
        )

    def held_error(self, systems: Sequence[DiagonalSystem], held: Sequences) -> float:
        """The error of a model on the held-back sequences; infinite where it is not finite."""
        total = scale = 0.0
        for start in range(0, len(held.x), _BATCH):
            part = held.rows(np.arange(start, min(start + _BATCH, len(held.x))))
            sums = self.error(tuple(systems), part.x, part.lengths, part.weights)
            total, scale = total + float(sums[0]), scale + float(sums[1])
        return total / scale if np.isfinite(total) and scale > 0 else np.inf


def _divergence(wanted: Array, got: Array, weights: Array) -> tuple[Array, Array]:
    """Sum of the Kullback-Leibler divergences, and how many there are."""
    p, q = jax.nn.log_softmax(wanted), jax.nn.log_softmax(got)
    return (weights * (jnp.exp(p) * (p - q)).sum(axis=-1)).sum(), weights.sum()


def _squared_error(wanted: Array, got: Array, weights: Array) -> tuple[Array, Array]:
    """Sum of squared errors, and the sum of squares of the original's outputs around their mean."""
    weights = weights[..., None]
    axes = tuple(range(wanted.ndim - 1))
    mean = (weights * wanted).sum(axis=axes) / weights.sum()
    spread = (weights * (wanted - mean) ** 2).sum()
    return (weights * (got - wanted) ** 2).sum(), spread + 1e-12


def _adam(values: Values, moving: Any, gradient: Values, done: Array, rate: Array) -> tuple[Values, Any]:
    """Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1); a gradient that is not finite moves nothing."""
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)]).all()
    gradient = jax.tree.map(lambda g: jnp.where(finite, g, 0), gradient)
    first = jax.tree.map(lambda m, g: _DECAY_1 * m + (1 - _DECAY_1) * g, moving[0], gradient)
    second = jax.tree.map(lambda v, g: _DECAY_2 * v + (1 - _DECAY_2) * g**2, moving[1], gradient)
    long, longer = 1 - _DECAY_1**done, 1 - _DECAY_2**done

    def move(value: Array, m: Array, v: Array) -> Array:
        return value - rate * (m / long) / (jnp.sqrt(v / longer) + _TINY)

    return jax.tree.map(move, values, first, second), (first, second)
