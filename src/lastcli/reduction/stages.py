"""Pruning in stages: fewer states each time, chosen anew on what the stage before made of the layers.

What a state is worth depends on what the others say, and a refit changes that: after the outputs were matched, other
states can be spared than before. So the way to a small model goes through larger ones. The original model stays the
teacher of every stage that matches outputs, and every stage is kept: the ratios of a sweep lie on one descent.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from lastcli.engine.allocation import states_to_keep
from lastcli.engine.system import Reduction

if TYPE_CHECKING:
    from lastcli.plan import Method, Refit
    from lastcli.reduction.compressor import Compressor

__all__ = ["Stages", "ladder"]


def ladder(states: int, target: int, steps: int) -> list[int]:
    """How many states are left after each of `steps` stages: every stage keeps the same share of the one before."""
    counts = [round(states * (target / states) ** (stage / steps)) for stage in range(1, steps)]
    return [*dict.fromkeys(count for count in counts if target < count < states), target]


class Stages:
    """The stages of one method and refit, from the original downwards.

    A sweep has one ladder, that of its largest ratio; its other ratios are further stages on the way. So the row of
    the largest ratio is what `prune --ratio` with as many steps writes.

    Args:
        compressor: of the original model.
        method, refit: of every stage.
    """

    def __init__(self, compressor: Compressor, method: Method, refit: Refit):
        self._compressor, self._method, self._refit = compressor, method, refit
        self._done: dict[int, list[Reduction]] = {}

    def reduce(self, *, ratio: Decimal | None = None, states: int | None = None) -> list[Reduction]:
        """One `Reduction` a layer, of the original layers; see `Compressor.reduce`."""
        compressor = self._compressor
        total = compressor.states
        target = states if states is not None else states_to_keep(total, ratio if ratio is not None else Decimal(0))
        rungs = ladder(total, self._lowest(target), compressor.plan.steps)
        for count in sorted({*(rung for rung in rungs if rung > target), target}, reverse=True):
            if count not in self._done:
                self._done[count] = self._next(count)
        return self._done[target]

    def _lowest(self, target: int) -> int:
        ratios = self._compressor.plan.ratios or ()
        return min([target, *(states_to_keep(self._compressor.states, ratio) for ratio in ratios)])

    def _next(self, count: int) -> list[Reduction]:
        """From the smallest stage that is larger."""
        compressor = self._compressor
        before = self._done.get(min((done for done in self._done if done > count), default=-1))
        if before is None:
            return compressor.reduce_at_once(self._method, self._refit, states=count)
        stage = compressor.on([reduction.system for reduction in before])
        return _composed(before, stage.reduce_at_once(self._method, self._refit, states=min(count, stage.states)))


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
