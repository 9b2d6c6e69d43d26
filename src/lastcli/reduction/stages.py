"""Pruning in stages: fewer states each time, chosen anew on what the stage before made of the layers.

What a state is worth depends on what the others say, and a refit changes that: after the outputs were matched, other
states can be spared than before. So the way to a small model goes through larger ones. The original model stays the
teacher of every stage that matches outputs, and every stage is kept: the ratios of a sweep lie on one descent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np

from lastcli.engine.allocation import states_to_keep
from lastcli.engine.protocol import Reduction, System

__all__ = ["Stages", "ladder"]


def ladder(states: int, target: int, steps: int) -> list[int]:
    """How many states are left after each of `steps` stages: every stage keeps the same share of the one before."""
    counts = [round(states * (target / states) ** (stage / steps)) for stage in range(1, steps)]
    return [*dict.fromkeys(count for count in counts if target < count < states), target]


class Stages:
    """The stages of one method and refit, from the original downwards.

    A sweep has one ladder, that of its largest ratio. Its other ratios are stages on the way, and each stands in for
    the rung beside it: a sweep of many ratios costs as many stages as it has rows, not one more for every rung.

    The stages on the way to a target depend on the target, on `steps` and on `ratios` alone: what a reduction is does
    not depend on what else was asked for before. Stages with the same way to them are made once.

    Args:
        systems: the original layers.
        steps: how many stages.
        ratios: of a sweep, or none.
        reduce: (layers, states to keep) → one reduction of each of these layers, in one stage.
    """

    def __init__(
        self,
        systems: Sequence[System],
        steps: int,
        ratios: Sequence[Decimal],
        reduce: Callable[[Sequence[System], int], list[Reduction]],
    ):
        self._systems, self._steps, self._reduce = tuple(systems), steps, reduce
        self._total = sum(system.stored_states for system in systems)
        self._counts = [states_to_keep(self._total, ratio) for ratio in ratios]
        self._done: dict[tuple[int, ...], list[Reduction]] = {}

    def reduce(self, *, ratio: Decimal | None = None, states: int | None = None) -> list[Reduction]:
        """One `Reduction` a layer, of the original layers, for a ratio or a number of states to keep."""
        target = states if states is not None else states_to_keep(self._total, ratio or Decimal(0))
        way = self.way(target)
        for end in range(1, len(way) + 1):
            if way[:end] not in self._done:
                self._done[way[:end]] = self._next(way[:end])
        return self._done[way]

    def way(self, target: int) -> tuple[int, ...]:
        """How many states are left after each stage on the way to `target`, itself the last."""
        lowest = min([target, *self._counts])
        near = (self._total / lowest) ** (0.5 / self._steps)
        rungs = {
            rung
            for rung in ladder(self._total, lowest, self._steps)
            if not any(count / near < rung < count * near for count in self._counts)
        }
        between = {count for count in rungs.union(self._counts) if target < count < self._total}
        return (*sorted(between, reverse=True), target)

    def _next(self, way: tuple[int, ...]) -> list[Reduction]:
        """The last stage of a way, whose others are done."""
        if len(way) == 1:
            return self._reduce(self._systems, way[0])
        before = self._done[way[:-1]]
        layers = [reduction.system for reduction in before]
        # floors may have kept more than was asked for, never less
        return _composed(before, self._reduce(layers, min(way[-1], sum(layer.stored_states for layer in layers))))


def _composed(before: Sequence[Reduction], after: Sequence[Reduction]) -> list[Reduction]:
    """Reductions of the original from those of a stage: the kept states in the original's numbering."""
    order = ("none", "readout", "all")
    return [
        Reduction(
            np.take_along_axis(np.asarray(first.kept), np.asarray(second.kept), axis=1),
            second.system,
            max(first.changed, second.changed, key=order.index),
        )
        for first, second in zip(before, after)
    ]
