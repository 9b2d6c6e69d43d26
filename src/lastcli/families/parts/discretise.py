"""From a continuous diagonal system to the discrete one, and back.

One state: x' = a x + b u with step Δ becomes x[k] = λ x[k-1] + g b u[k]; a rule gives λ and the input gain g. The
functions take the array module (`numpy` or `jax.numpy`) first, so that the float64 mathematics of a family and its
traced forward pass share one formula. Shapes broadcast; everything is elementwise.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["RULES", "continuous", "discrete"]

RULES = ("zoh", "bilinear", "dirac", "async")

# exp of this is zero in float32 and float64 alike to any useful accuracy, and the number itself fits every dtype.
_LOG_OF_ZERO = -100.0


def discrete(xp: ModuleType, rule: str, a: Any, step: Any, time: float = 1.0) -> tuple[Any, Any]:
    """Discrete pole and input gain (λ, g) of a continuous pole.

    Args:
        xp: `numpy` or `jax.numpy`.
        rule: "zoh" (λ = exp(aΔ), g = (λ-1)/a) and "bilinear" (λ = (1+aΔ/2)/(1-aΔ/2), g = Δ/(1-aΔ/2)) of S5
            (arXiv 2208.04933, appendix B.1); "dirac" (g = 1) and "async" (g = (exp(a·step)-1)/a, whatever the time
            between two events) of Event-SSM (arXiv 2404.18508), both with λ = exp(aΔ).
        a: complex continuous poles. Zero is allowed: g takes its limit.
        step: positive learned step sizes.
        time: time between two inputs in units of the step; Δ = step·time. One except for event streams.
    """
    delta = step * time
    if rule == "bilinear":
        half = a * delta / 2
        return (1 + half) / (1 - half), delta / (1 - half)
    poles = xp.exp(a * delta)
    if rule == "dirac":
        return poles, xp.ones_like(poles)
    held = step if rule == "async" else delta
    # (exp(aΔ) - 1)/a loses half its digits for slow states, expm1 does not; a = 0 has the limit Δ.
    safe = xp.where(a == 0, 1, a)
    return poles, xp.where(a == 0, held + 0 * a, xp.expm1(safe * held) / safe)


def continuous(rule: str, poles: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Continuous poles a whose discretisation over `delta` has the given poles; NumPy only.

    The inverse of `discrete` on the principal branch (|Im aΔ| ≤ π). A discrete zero pole becomes one that decays to
    nothing within `delta`. For "bilinear" a pole at -1 has no finite counterpart and comes out as infinite.
    """
    poles = np.asarray(poles, np.complex128)
    if rule == "bilinear":
        with np.errstate(divide="ignore", invalid="ignore"):
            return 2 * (poles - 1) / (poles + 1) / delta
    zero = poles == 0
    return np.where(zero, _LOG_OF_ZERO, np.log(np.where(zero, 1, poles))) / delta
