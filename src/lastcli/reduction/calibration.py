"""Calibration: a model's forward pass over unlabelled inputs, boiled down to the second moments of every layer.

Forward passes run in the checkpoint's precision, the moments are accumulated in float64. Nothing here looks at a
label, and nothing grows with the number of examples. The examples of a batch are spread over the devices of a process,
the batches over the processes, whose moments are summed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import Reduction, System
from lastcli.errors import InputError
from lastcli.evaluation.data import Batch, Batches
from lastcli.evaluation.passes import Runner, memory_errors, own_batches, padded, precision_of
from lastcli.families.base import Forward
from lastcli.parallel import layers, processes
from lastcli.reduction.layer_moments import LayerMoments

__all__ = [
    "Progress",
    "collect_moments",
    "layer_signals",
    "reusable",
    "sequential_refit",
    "share_of",
    "signal_moments",
]

Array = Any
Systems = Sequence[System]
# What a batch takes to be boiled down: a chunk of signals and features, and products of them.
_TAKING_BYTES = 256 << 20
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
) -> Sequence[Any]:
    """Moments of every layer of the model as it is, in one pass over the batches; in memory as far as they fit.

    Args:
        forward: the architecture.
        params: {tensor name: array} of the tensors `forward` needs.
        systems: the layers, NumPy float64.
        batches: inputs; labels are not looked at.
        progress: called with (batches done, batches in all).

    Raises:
        InputError: no batches, or inputs that drive a layer to values that are not finite.
    """

    moments = LayerMoments(len(systems), lambda layer: engine_of(systems[layer]).empty_moments(systems[layer]))

    def taken(batch: Batch, inputs: Sequence[Any], i: int) -> None:
        u, engine = inputs[i], engine_of(systems[i])
        weights = counted_steps(batch, u.shape[0], u.shape[1], systems)
        moments.put(i, engine.accumulate(moments[i], systems[i], np.asarray(u), weights))

    def own() -> None:
        model = _Inputs(forward, params)
        placed = model.runner.systems(systems)
        for batch in _counted(_own(batches), progress):
            batch, inputs = model.of(placed, batch)
            layers.each(partial(taken, batch, inputs), range(len(inputs)), _TAKING_BYTES)

    processes.together(own)
    if processes.count() > 1:
        for i in range(len(systems)):
            moments.put(i, _whole(processes.exchange(moments[i])))
    if len(moments) and not moments[0].weight > 0:
        raise InputError("The calibration split holds no examples; give at least one batch of inputs.")
    return moments


def signal_moments(
    system: System, signals: Callable[[Iterable[Batch]], Iterable[Any]], batches: Iterable[Batch]
) -> Any:
    """Moments of one layer with targets of its own.

    Args:
        system: the layer.
        signals: gives what `engine.protocol.Signals` gives, on the given batches.
        batches: of which each process takes its share.
    """

    def own() -> Any:
        moments = engine_of(system).empty_moments(system)
        for u, target, weights in signals(_own(batches)):
            moments = engine_of(system).accumulate(moments, system, u, weights, target)
        return moments

    return _whole(processes.together(own))


def _own(batches: Iterable[Batch]) -> Iterable[Batch]:
    """The share of this process; of a split only its batches are read."""
    if processes.count() == 1:
        return batches
    if isinstance(batches, Batches):
        return (batch for _, batch in own_batches(batches))
    return processes.share(batches)


def _whole(parts: Sequence[Any]) -> Any:
    """The moments of all processes, in float64 and in their order: means, weighted by what each has seen."""
    if len(parts) == 1:
        return parts[0]
    weights = np.array([float(part.weight) for part in parts])
    total = weights.sum()
    shares = weights / total if total > 0 else weights

    def mean(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        if arrays[0] is None:
            return None
        return sum(share * np.asarray(array, np.float64) for share, array in zip(shares, arrays))

    names = [field.name for field in dataclasses.fields(parts[0]) if field.name != "weight"]
    return dataclasses.replace(parts[0], **{name: mean(name) for name in names}, weight=np.float64(total))


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
        arriving = partial(layer_signals, forward, params, systems, list(current), i, progress=report)
        moments = partial(signal_moments, system, arriving, batches)
        engine = engine_of(system)
        reductions.append(engine.refit_on_signals(system, kept, moments, partial(arriving, batches), False, None))
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
    model = _Inputs(forward, params)
    placed, reduced = model.runner.systems(systems), model.runner.systems(current)
    same = all(system is other for system, other in zip(systems[:layer], current[:layer]))
    for batch in _counted(batches, progress):
        batch, inputs = model.of(placed, batch)
        original = np.asarray(inputs[layer])
        u = original if same else np.asarray(model.of(reduced, batch)[1][layer])
        target = engine_of(systems[layer]).output(systems[layer], original)
        yield u, target, counted_steps(batch, u.shape[0], u.shape[1], systems)


class _Inputs:
    """What arrives at every layer of a model, its batches spread over the devices of this process."""

    def __init__(self, forward: Forward, params: Mapping[str, np.ndarray]) -> None:
        self.runner = Runner(forward, params)
        self._program = _program(forward.apply)

    def of(self, placed: Any, batch: Batch) -> tuple[Batch, Any]:
        """The batch with an equal number of examples for each device, and the inputs of the layers on it."""
        batch = padded(batch, self.runner.mesh)
        with memory_errors():
            x, _, lengths = self.runner.batch(batch)
            with precision_of(self.runner.forward):
                return batch, self._program(self.runner.params, placed, x, lengths)


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
