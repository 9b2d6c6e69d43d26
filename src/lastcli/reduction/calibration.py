"""Calibration: a model's forward pass over unlabelled inputs, boiled down to the second moments of every layer.

Forward passes run in the checkpoint's precision, the moments are accumulated in float64. Nothing here looks at a
label, and nothing grows with the number of examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import Reduction, System
from lastcli.errors import InputError
from lastcli.evaluation.data import Batch
from lastcli.evaluation.passes import computable, in_precision, precision_of
from lastcli.families.base import Forward

__all__ = [
    "Progress",
    "collect_moments",
    "layer_signals",
    "reusable",
    "sequential_refit",
    "share_of",
]

Array = Any
Systems = Sequence[System]
# progress(done, total), called after every batch.
Progress = Callable[[int, int], None]


@lru_cache(maxsize=16)
def _program(apply: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(lambda params, systems, x, lengths: apply(params, systems, x, lengths)[1])


def collect_moments(
    forward: Forward,
    params: Mapping[str, np.ndarray],
    systems: Systems,
    batches: Iterable[Batch],
    *,
    progress: Progress | None = None,
) -> list[Any]:
    """Moments of every layer of the model as it is, in one pass over the batches.

    Args:
        forward: the architecture.
        params: {tensor name: array} of the tensors `forward` needs.
        systems: the layers, NumPy float64.
        batches: inputs; labels are not looked at.
        progress: called with (batches done, batches in all).

    Raises:
        InputError: no batches, or inputs that drive a layer to values that are not finite.
    """
    moments = [engine_of(system).empty_moments(system) for system in systems]
    program, placed = _program(forward.apply), in_precision(forward, systems)
    params = computable(forward, params)
    for batch in _counted(batches, progress):
        with precision_of(forward):
            inputs = program(params, placed, batch.x, batch.lengths)
        for i, u in enumerate(inputs):
            weights = counted_steps(batch, u.shape[0], u.shape[1], systems)
            moments[i] = engine_of(systems[i]).accumulate(moments[i], systems[i], np.asarray(u), weights)
    if moments and not moments[0].weight > 0:
        raise InputError("The calibration split holds no examples; give at least one batch of inputs.")
    return moments


def sequential_refit(
    forward: Forward,
    params: Mapping[str, np.ndarray],
    systems: Systems,
    keeps: Sequence[np.ndarray],
    batches: Iterable[Batch],
    *,
    progress: Progress | None = None,
) -> list[Reduction]:
    """Refit layer after layer: inputs from the layers already reduced, target the original layer's output.

    What the upstream layers lost is thereby partly made good downstream. One compiled program serves every layer; each
    costs two passes over the batches, the first layer one.

    Args:
        keeps: one (sets, K) array of kept states a layer.
        batches: can be iterated any number of times.
    """
    batches = reusable(batches)
    current = list(systems)
    reductions: list[Reduction] = []
    for i, (system, kept) in enumerate(zip(systems, keeps)):
        report = share_of(progress, i, len(systems))
        signals = partial(layer_signals, forward, params, systems, list(current), i, batches, progress=report)
        engine = engine_of(system)
        reductions.append(engine.refit_on_signals(system, kept, signals, False, None))
        current[i] = engine.embed(system, reductions[-1])
    return reductions


def counted_steps(batch: Batch, sequences: int, steps: int, systems: Systems) -> np.ndarray:
    """(sequences, steps) float32 weights of the time steps: 0 for padded examples, and for padding nothing reads.

    A two-tower model runs all first documents of a batch and then all second ones: sequences is twice the batch. A
    backward scan starts in the padding, so what a layer says there reaches every true step of the layers above.
    """
    towers = sequences // len(batch.weights)
    weights = np.broadcast_to(np.tile(batch.weights, towers)[:, None], (sequences, steps)).copy()
    if batch.lengths is None or any(system.bidirectional for system in systems):
        return weights
    pair = towers == 2 and batch.x.ndim > 2 and batch.x.shape[1] == 2
    if steps == batch.x.shape[2 if pair else 1]:
        lengths = batch.lengths.T.reshape(-1) if pair else np.tile(batch.lengths, towers)
        weights *= np.arange(steps) < lengths[:, None]
    return weights


def layer_signals(
    forward: Forward,
    params: Mapping[str, np.ndarray],
    systems: Systems,
    current: Systems,
    layer: int,
    batches: Iterable[Batch],
    *,
    progress: Progress | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batch by batch: what arrives at a layer of the current model, and what the original layer answered.

    Args:
        systems: the original layers.
        current: the model's layers at present, in the original's shapes (`embed`).
        layer: which one.

    Yields:
        u (n, L, F) in the model's precision, the original layer's output under the original model's inputs
        (n, L, ...) float64, and the weights (n, L) of the time steps.
    """
    program, params = _program(forward.apply), computable(forward, params)
    placed, reduced = in_precision(forward, systems), in_precision(forward, current)
    same = all(system is other for system, other in zip(systems[:layer], current[:layer]))
    for batch in _counted(batches, progress):
        with precision_of(forward):
            original = np.asarray(program(params, placed, batch.x, batch.lengths)[layer])
            u = original if same else np.asarray(program(params, reduced, batch.x, batch.lengths)[layer])
        target = engine_of(systems[layer]).output(systems[layer], original)
        yield u, target, counted_steps(batch, u.shape[0], u.shape[1], systems)


def reusable(batches: Iterable[Any]) -> Iterable[Any]:
    """A one-shot iterator would be empty at the second layer."""
    return list(batches) if iter(batches) is batches else batches


def _counted(batches: Iterable[Any], progress: Progress | None) -> Iterator[Any]:
    total = len(batches) if isinstance(batches, Sized) else 0
    for done, batch in enumerate(batches, start=1):
        yield batch
        if progress is not None:
            progress(done, total)


def share_of(progress: Progress | None, layer: int, layers: int) -> Progress | None:
    """The progress of one layer as a part of the progress of all, each of which takes equally long."""
    if progress is None:
        return None
    return lambda done, total: progress(layer * total + done, layers * total)
