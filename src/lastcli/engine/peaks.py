"""The highest point of a frequency response: a grid that follows the poles, then a search around the best points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["peak_gain", "pole_grid"]

_GOLDEN = (np.sqrt(5) - 1) / 2
_STEPS = 36  # golden sections: shrink a bracket by 3·10⁻⁸, and a maximum is flat
_OFFSETS = (-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)


def pole_grid(
    poles: np.ndarray, points: int = 64, offsets: tuple[float, ...] = _OFFSETS, real: bool = False
) -> np.ndarray:
    """Frequencies that resolve every resonance: an even grid, each pole's angle, and points around it.

    A pole at distance d = 1 - |λ| from the circle shapes the response within a few d of its angle, so the points
    around it lie at multiples of d.

    Args:
        poles: (..., P) complex, |λ| < 1.
        points: size of the even grid.
        offsets: where to look around a pole, in units of d.
        real: the response is that of a real system, so [0, π] says all; else [-π, π].

    Returns:
        (..., K) radians, ascending.
    """
    distance, angle = np.minimum(1 - np.abs(poles), 0.5), np.angle(poles)
    near = angle[..., None] + distance[..., None] * np.array(offsets)
    near = (near + np.pi) % (2 * np.pi) - np.pi
    near = (np.abs(near) if real else near).reshape(*poles.shape[:-1], -1)
    even = np.linspace(0 if real else -np.pi, np.pi, points + 1)
    return np.sort(np.concatenate([near, np.broadcast_to(even, (*near.shape[:-1], points + 1))], axis=-1), axis=-1)


def peak_gain(
    gain: Callable[[np.ndarray], np.ndarray], grid: np.ndarray, brackets: int = 3, steps: int = _STEPS
) -> np.ndarray:
    """max over ω of each of many gain curves: the highest local maxima on the grid, refined by golden section.

    Args:
        gain: (..., k) frequencies -> (..., k) gains, one curve for each leading index.
        grid: (..., K) ascending frequencies to begin with, both ends of the range among them.
        brackets: how many of the highest local maxima of the grid are refined.
        steps: golden sections of each; n of them leave the share 0.618ⁿ of a bracket, and the error of the gain is the
            square of that, on a grid that resolves every resonance.

    Returns:
        (...) the highest gains.
    """
    values = gain(grid)
    before = np.concatenate([values[..., :1], values[..., :-1]], axis=-1)
    after = np.concatenate([values[..., 1:], values[..., -1:]], axis=-1)
    local = np.where((values >= before) & (values >= after), values, -np.inf)
    best = np.argsort(-local, axis=-1, kind="stable")[..., :brackets]
    low = np.take_along_axis(grid, np.maximum(best - 1, 0), axis=-1)
    high = np.take_along_axis(grid, np.minimum(best + 1, grid.shape[-1] - 1), axis=-1)
    top = values.max(axis=-1)
    if steps < 1:
        return top
    width = _GOLDEN * (high - low)
    left, right = high - width, low + width
    at_left, at_right = np.split(gain(np.concatenate([left, right], axis=-1)), 2, axis=-1)
    top = np.maximum(top, np.maximum(at_left, at_right).max(axis=-1))
    for _ in range(steps - 1):
        # of the two points inside, the higher one divides what is left in the golden ratio again
        rises = at_left < at_right
        low, high = np.where(rises, left, low), np.where(rises, high, right)
        width = _GOLDEN * (high - low)
        new = np.where(rises, low + width, high - width)
        at_new = gain(new)
        top = np.maximum(top, at_new.max(axis=-1))
        left, right = np.where(rises, right, new), np.where(rises, new, left)
        at_left, at_right = np.where(rises, at_right, at_new), np.where(rises, at_new, at_left)
    return top
