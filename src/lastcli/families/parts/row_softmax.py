"""The gain of DSS's row softmax (arXiv 2203.14343, section 3.2), which normalises modes over the kernel's length."""

from __future__ import annotations

import numpy as np

from lastcli.errors import UnsupportedModelError

__all__ = ["EPSILON", "reciprocal", "softmax_gain"]

EPSILON = 1e-7


def reciprocal(x: np.ndarray) -> np.ndarray:
    """1/x, bounded near zero as the published code has it: x*/(|x|² + ε)."""
    return x.conj() / (x * x.conj() + EPSILON)


def softmax_gain(a: np.ndarray, dta: np.ndarray, length: int, layer: str) -> np.ndarray:
    """g with kernel entry k = g·exp(k·a·dt), k = 0..L-1: 1/a over the sum of exp(k·a·dt), stably.

    Args:
        a: continuous poles.
        dta: a·dt, of the kernel's shape.
        length: L; 0 for the limit of long kernels, which growing modes do not have.
        layer: for the error message.

    Raises:
        UnsupportedModelError: a mode grows and no length is given.
    """
    grows = (dta.real > 0) & np.ones_like(a.real, bool)
    if length <= 0:
        if grows.any():
            raise UnsupportedModelError(
                f"{layer}: {int(grows.sum())} modes grow, so their softmax depends on the length of the kernel; give "
                "it with --set kernel_length=L (the length of the training sequences)."
            )
        return -np.expm1(dta) * reciprocal(a + 0 * dta)
    signed = np.where(grows, -dta, dta)
    gain = np.expm1(signed) * reciprocal(np.expm1(signed * length) * a)
    # Growing modes are scaled by their last entry instead of their first.
    return np.where(grows, gain * np.exp(np.where(grows, -dta * (length - 1), 0)), gain)
