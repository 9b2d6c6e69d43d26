"""How wide a masked model runs: at full size, where one program serves every ratio, or nearer to the states it keeps.

Removed states cost as much as kept ones. On a CPU a layer's products are most of a pass, so a candidate that removes
much is given a program of its own, with every layer's states rounded up to a quarter of what it had, where that saves
more than compiling it costs. The choice depends on the candidate, the model and the split alone: not on the other
candidates of a sweep, nor on a clock, so that a number does not depend on what else was asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import Reduction, System

__all__ = ["embedded", "widths"]

_PARTS = 4
# Multiply-adds that take about as long as compiling a model's pass (benchmarks/speed.py prints both).
_COMPILATION = 1e11


def embedded(originals: Sequence[System], reductions: Sequence[Reduction], steps: int) -> tuple[System, ...]:
    """The reduced layers with inert states added, in one of a few sizes.

    Args:
        originals: the layers before.
        reductions: what became of them.
        steps: time steps of all examples of the split together.
    """
    layers = list(zip(originals, reductions))
    whole = tuple(engine_of(system).embed(system, reduction) for system, reduction in layers)
    if jax.default_backend() != "cpu" or any(s.time_invariant and s.multi for s in originals):
        return whole  # a multi-SISO layer is a convolution, whose length its states do not change
    packed = tuple(
        engine_of(system).embed(system, reduction, width)
        for (system, reduction), width in zip(layers, widths(originals, reductions))
    )
    saved = sum(_numbers(large) - _numbers(small) for large, small in zip(whole, packed))
    return packed if saved * steps > _COMPILATION else whole


def widths(originals: Sequence[System], reductions: Sequence[Reduction]) -> tuple[int, ...]:
    """States of each layer, rounded up to the next quarter of what it had before."""

    def rounded(states: int, kept: int) -> int:
        part = -(-states // _PARTS)
        return min(states, max(1, -(-kept // part)) * part)

    return tuple(rounded(s.states, np.shape(r.kept)[1]) for s, r in zip(originals, reductions))


def _numbers(system: System) -> int:
    """Real numbers of a layer: about its multiply-adds a step, since each is used once."""
    arrays = [value for value in vars(system).values() if isinstance(value, np.ndarray)]
    return sum(array.size * (2 if np.iscomplexobj(array) else 1) for array in arrays)
