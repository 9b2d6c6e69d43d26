"""One step of a model whose parts treat every step by itself, but for its state space layers.

Such a model is features of every step and a head that reads them; run step by step, its layers carry their states, and
a head over the mean or the sum of all steps carries that. JAX is imported where it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

__all__ = ["Cache", "step_by_step"]

Features = Callable[[Any, Sequence[Any], Any], tuple[Any, tuple[Any, ...]]]
Head = Callable[[Any, Any], Any]


class Cache(NamedTuple):
    """What n sequences carry.

    Attributes:
        states: of each layer.
        total: (n, H) the sum of the features so far; None where the head reads the present step alone.
        count: how many steps that were; None likewise.
    """

    states: tuple[Any, ...]
    total: Any = None
    count: Any = None


def step_by_step(features: Features, head: Head, *, over: str, sequence: bool, width: int) -> dict[str, Any]:
    """The fields `step` and `start` of a `Forward`.

    Args:
        features: `(params, systems, x) -> (h (n, L, H), layer inputs)`, what the head reads of every step.
        head: `(params, h) -> outputs` from features (n, L, H), as in a pass over a whole sequence.
        over: what the head makes of the steps: "last" (the present one), "mean" or "sum".
        sequence: whether outputs have a time axis.
        width: H.
    """

    def step(params: Any, systems: Sequence[Any], cache: Cache, x: Any) -> tuple[Any, Cache]:
        from lastcli.engine.recurrence import advance

        layers = [system.replace(state=state) for system, state in zip(systems, cache.states, strict=True)]
        h, inputs = features(params, layers, x[:, None])
        states = tuple(advance(layer, u) for layer, u in zip(layers, inputs, strict=True))
        total = count = None
        if over != "last":
            total, count = cache.total + h[:, 0], cache.count + 1
            h = (total / count if over == "mean" else total)[:, None].astype(h.dtype)
        outputs = head(params, h)
        return (outputs[:, 0] if sequence else outputs), Cache(states, total, count)

    def start(systems: Sequence[Any], n: int) -> Cache:
        import jax.numpy as jnp

        from lastcli.engine import recurrence

        states = tuple(recurrence.start(system, n) for system in systems)
        if over == "last":
            return Cache(states)
        real = states[0].re.dtype
        return Cache(states, jnp.zeros((n, width), real), jnp.zeros((), real))

    return {"step": step, "start": start}
