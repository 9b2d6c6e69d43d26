"""How much of a model its states are: what pruning can win at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lastcli.engine.costs import step_cost
from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import System
from lastcli.engine.system import DiagonalSystem
from lastcli.errors import LastError
from lastcli.families.base import Layer
from lastcli.model.checkpoint import Checkpoint
from lastcli.verbs.shared.rebuilding import as_checkpoint, rebuild

__all__ = ["Work", "state_parameters", "step_work"]


@dataclass(frozen=True)
class Work:
    """A step of one sequence.

    Attributes:
        multiply_adds: of the whole model.
        of_states: those of them that go when states go: driving, moving and reading them. None where it is not known.
        state_bytes: what the sequence carries to the next step, as float32; None where it is read from both ends.
    """

    multiply_adds: int
    of_states: int | None
    state_bytes: int | None


def state_parameters(checkpoint: Checkpoint) -> int | None:
    """Stored elements that go with the states, all of them counted; None where the format does not say.

    They fall in proportion to the states, so a layer of half its states shows them.
    """
    total = 0.0
    try:
        for layer, system in zip(checkpoint.layers, checkpoint.systems):
            fewer = system.states // 2
            if fewer:
                sizes = [_elements(checkpoint, layer, system, states) for states in (system.states, fewer)]
                total += (sizes[0] - sizes[1]) * system.states / (system.states - fewer)
    except LastError:
        return None
    return round(total)


def _elements(checkpoint: Checkpoint, layer: Layer, system: System, states: int) -> int:
    """Elements of what a family writes anew for the first states of a layer."""
    reduction = engine_of(system).truncate(system, _first(system, states))
    new = checkpoint.family.rebuild(layer, checkpoint.config, checkpoint.read, reduction, states)
    return sum(array.size for array in new.values() if array is not None)


def _first(system: System, states: int) -> np.ndarray:
    return np.tile(np.arange(states), (system.sets, 1))


def step_work(checkpoint: Checkpoint, length: int) -> Work | None:
    """What a step costs; None where the model around the layers is not known.

    Args:
        length: of the sequences, by whose steps the work of a model that is not run step by step is divided.
    """
    whole = checkpoint.decoding
    if whole is not None:
        return Work(whole.multiply_adds, _selective(checkpoint), whole.state_bytes)
    layers = [system for system in checkpoint.systems if isinstance(system, DiagonalSystem)]
    around = _around(checkpoint, layers, length) if len(layers) == len(checkpoint.systems) else None
    if around is None:
        return None
    costs = [step_cost(layer) for layer in layers]
    both = any(layer.bidirectional for layer in layers)
    return Work(
        multiply_adds=around + sum(products for _, products in costs),
        of_states=sum(step_cost(layer.replace(D=None))[1] for layer in layers),
        state_bytes=None if both else 4 * sum(numbers for numbers, _ in costs),
    )


def _around(checkpoint: Checkpoint, layers: Sequence[DiagonalSystem], length: int) -> int | None:
    from lastcli.evaluation.work import products_around

    try:
        forward = checkpoint.forward
        return None if forward is None else products_around(forward, checkpoint.params, layers, length)
    except LastError:  # a model that only the user's own function can run
        return None


def _selective(checkpoint: Checkpoint) -> int | None:
    """Of a model whose family counts its steps, by the same model with half of the states."""
    systems = checkpoint.systems
    states = systems[0].states
    fewer, full = states // 2, checkpoint.decoding
    if not fewer or full is None or any(system.states != states for system in systems):
        return None
    try:
        halves = [engine_of(system).truncate(system, _first(system, fewer)) for system in systems]
        half = as_checkpoint(checkpoint, rebuild(checkpoint, halves, "uniform")).decoding
    except LastError:
        return None
    return None if half is None else round((full.multiply_adds - half.multiply_adds) * states / (states - fewer))
