"""L-BFGS over many independent problems at once (Nocedal and Wright, Numerical Optimization, algorithm 7.4).

One call of the objective serves all problems: the channels of a multi-SISO layer advance side by side, each with a
history, a step length and a best point of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Descent", "minimise"]

# objective(z) → values (S,), gradients (S, dim), and values (S,) on data that the descent does not see.
Found = tuple[np.ndarray, np.ndarray, np.ndarray]
Objective = Callable[[np.ndarray], Found]

_MEMORY = 20
_ARMIJO = 1e-4
_HALVINGS = 8
# Held-back values so far above their best do not come back; those that go on falling waver by less.
_LOST, _LOST_STEPS = 0.01, 3


@dataclass(frozen=True)
class Descent:
    """Where a descent ended.

    Attributes:
        best: (S, dim), the point of each problem with the smallest held-back value.
        held: (S,), that value.
        start: (S,), the held-back value at the start.
        steps: iterations done.
    """

    best: np.ndarray
    held: np.ndarray
    start: np.ndarray
    steps: int


def minimise(
    objective: Objective,
    z: np.ndarray,
    *,
    steps: int,
    patience: int = 10,
    tolerance: float = 1e-3,
    progress: Callable[[int, int], None] | None = None,
) -> Descent:
    """Minimise S independent objectives from `z` (S, dim), stopping early on held-back data.

    It stops after `steps` iterations, or once the held-back values together have not fallen by the share `tolerance`
    within `patience` iterations or are `_LOST` above their best `_LOST_STEPS` times in a row, or when no problem moves
    any more.
    """
    value, gradient, now = objective(z)
    best, best_held = z.copy(), now
    start, mark, marked = now, now.sum(), 0
    history: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    done = lost = 0
    for done in range(1, steps + 1):
        direction = -_two_loops(gradient, history)
        slope = (direction * gradient).sum(axis=1)
        uphill = ~(slope < 0)
        direction[uphill], slope[uphill] = -gradient[uphill], -(gradient[uphill] ** 2).sum(axis=1)
        step = np.ones(len(z)) if history else 1 / np.maximum(np.abs(gradient).sum(axis=1), 1e-300)
        point, (new_value, new_gradient, now), moved = _search(
            objective, z, (value, gradient, now), direction, slope, step
        )
        if not moved.any():
            break
        history = [*history, _pair(point - z, new_gradient - gradient)][-_MEMORY:]
        z, value, gradient = point, new_value, new_gradient
        better = now < best_held
        best[better], best_held = z[better], np.where(better, now, best_held)
        if best_held.sum() < (1 - tolerance) * mark:
            mark, marked = best_held.sum(), done
        if progress is not None:
            progress(done, steps)
        lost = lost + 1 if now.sum() > (1 + _LOST) * best_held.sum() else 0
        if done - marked >= patience or lost >= _LOST_STEPS:
            break
    return Descent(best=best, held=best_held, start=start, steps=done)


def _pair(move: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A history entry with weight 1/(s·y), 0 where the curvature is not positive: that problem then skips it."""
    product = (move * change).sum(axis=1)
    enough = product > 1e-12 * np.sqrt((move**2).sum(axis=1) * (change**2).sum(axis=1))
    return move, change, np.where(enough, 1 / np.where(enough, product, 1), 0.0)


def _two_loops(gradient: np.ndarray, history: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    q = gradient.copy()
    shares = []
    for move, change, weight in reversed(history):
        share = weight * (move * q).sum(axis=1)
        q -= share[:, None] * change
        shares.append(share)
    if history:
        _, change, weight = history[-1]
        curvature = weight * (change**2).sum(axis=1)
        q /= np.where(curvature > 0, curvature, 1.0)[:, None]
    for (move, change, weight), share in zip(history, reversed(shares)):
        q += (share - weight * (change * q).sum(axis=1))[:, None] * move
    return q


def _search(
    objective: Objective, z: np.ndarray, at: Found, direction: np.ndarray, slope: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, Found, np.ndarray]:
    """Halve the step of every problem until its value has fallen enough; those that never do stay where they are.

    Returns:
        The new points, what the objective says there, and which problems have moved.
    """
    point, found = z.copy(), tuple(part.copy() for part in at)
    moved = np.zeros(len(z), dtype=bool)
    for _ in range(_HALVINGS):
        trial = np.where(moved[:, None], point, z + step[:, None] * direction)
        got = objective(trial)
        finite = np.isfinite(got[0]) & np.isfinite(got[1]).all(axis=1)
        fell = ~moved & finite & (got[0] <= at[0] + _ARMIJO * step * slope)
        point[fell] = trial[fell]
        for part, new in zip(found, got):
            part[fell] = new[fell]
        moved |= fell
        if moved.all():
            break
        step = np.where(moved, step, step / 2)
    return point, (found[0], found[1], found[2]), moved
