"""The time of one step of a model that is run as a recurrence.

Steps run in a compiled loop, each with the states that the one before left: what starts a program from Python, often
more than a small model's step itself, is not what is measured.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import System
from lastcli.evaluation.data import Split
from lastcli.evaluation.fitting import fit_split
from lastcli.evaluation.passes import Runner, in_precision, precision_of
from lastcli.families.base import Forward

__all__ = ["STEPPED", "StepRun", "calls_for", "not_stepped"]

# Sequences that are stepped side by side: one, as in a live stream, and as many as a server may have.
STEPPED = (1, 32)
# Steps of one compiled loop: enough that starting it is not what is measured.
_LOOP = 64

SHORTEST_ROUND = 0.01
WARM_UP = 2


def calls_for(seconds: Callable[[int], float]) -> int:
    """How often a program is called in a round, so that the clock is not what is measured; it is warm then.

    Args:
        seconds: of one call, the mean over so many.
    """
    for _ in range(WARM_UP):
        once = seconds(1)
    return max(math.ceil(SHORTEST_ROUND / max(once, 1e-7)), 1)


def not_stepped(forward: Forward, systems: Sequence[System]) -> str | None:
    """Why a model is not run step by step, as a clause; None where it is."""
    if any(system.bidirectional for system in systems):
        return "its layers read the sequence from both ends"
    if forward.step is None or forward.start is None:
        return forward.unsteppable or "no step of this model is known"
    return None


class StepRun:
    """A loop of steps of one compiled model, its states on the device.

    Args:
        forward: a model that has a step; `params` and `layers` are its own.
        split: where the inputs come from.
        size: sequences side by side.
    """

    def __init__(
        self, forward: Forward, params: Mapping[str, np.ndarray], layers: Sequence[System], split: Split, size: int
    ) -> None:
        runner = Runner(forward, params)
        step, start = forward.step, forward.start
        if step is None or start is None:
            raise ValueError("this model is not run step by step")
        self.precision = functools.partial(precision_of, forward)
        x = _some_steps(fit_split(split, forward, labels=False), forward, size)

        def loop(params: Any, systems: Any, cache: Any, x: Any) -> tuple[Any, Any]:
            def one(cache: Any, now: Any) -> tuple[Any, Any]:
                outputs, cache = step(params, systems, cache, now)
                return cache, outputs

            return jax.lax.scan(one, cache, x)

        ready = tuple(engine_of(layer).recurrent(layer) for layer in in_precision(forward, layers))
        systems = runner.everywhere(ready)
        with self.precision():
            self.arguments = (runner.params, systems, start(systems, size), runner.everywhere(x))
            self.program = jax.jit(loop).lower(*self.arguments).compile()
        self.calls = calls_for(lambda calls: _LOOP * self._seconds(calls))

    def measure(self) -> float:
        """Seconds a step in one round."""
        return self._seconds(self.calls)

    def _seconds(self, calls: int) -> float:
        params, systems, cache, x = self.arguments
        with self.precision():
            begin = time.perf_counter()
            for _ in range(calls):
                cache, outputs = self.program(params, systems, cache, x)
            jax.block_until_ready((outputs, cache))
            return (time.perf_counter() - begin) / (calls * _LOOP)


def _some_steps(split: Split, forward: Forward, size: int) -> np.ndarray:
    """(`_LOOP`, size, ...): the first steps of as many sequences, begun again where there are not enough."""
    x = np.asarray(split.inputs(np.arange(size) % split.n))
    if forward.layout == "series":
        x = x[:, 0]
    return np.ascontiguousarray(np.swapaxes(x[:, np.arange(_LOOP) % x.shape[1]], 0, 1))
