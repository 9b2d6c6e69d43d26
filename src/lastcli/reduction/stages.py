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
        self._systems, self._steps, self._ratios, self._reduce = tuple(systems), steps, tuple(ratios), reduce
        self._total = sum(system.stored_states for system in systems)
        self._done: dict[int, list[Reduction]] = {}

    def reduce(self, *, ratio: Decimal | None = None, states: int | None = None) -> list[Reduction]:
        """One `Reduction` a layer, of the original layers, for a ratio or a number of states to keep."""
        target = states if states is not None else states_to_keep(self._total, ratio or Decimal(0))
        lowest = min([target, *(states_to_keep(self._total, other) for other in self._ratios)])
        rungs = {rung for rung in self._rungs(lowest) if rung > target}
        for count in sorted({*rungs, target}, reverse=True):
            if count not in self._done:
                self._done[count] = self._next(count)
        return self._done[target]

    def _rungs(self, lowest: int) -> list[int]:
        """The ladder down to `lowest`, without the rungs that lie less than half a step from a ratio of the sweep."""
        ratios = [states_to_keep(self._total, ratio) for ratio in self._ratios]
        near = (self._total / lowest) ** (0.5 / self._steps)
        rungs = ladder(self._total, lowest, self._steps)
        return [rung for rung in rungs if not any(count / near < rung < count * near for count in ratios)]

    def _next(self, count: int) -> list[Reduction]:
        """From the smallest stage that is larger."""
        before = self._done.get(min((done for done in self._done if done > count), default=-1))
        if before is None:
            return self._reduce(self._systems, count)
        layers = [reduction.system for reduction in before]
        # floors may have kept more than was asked for, never less
        return _composed(before, self._reduce(layers, min(count, sum(layer.stored_states for layer in layers))))


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
