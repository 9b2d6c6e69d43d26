"""Tiny layers of S4D written anew with complex parameters."""

from __future__ import annotations

import numpy as np

from tests.builders.named import Arrays


def complex_s4d_layer(
    rng: np.random.Generator,
    H: int = 3,
    N: int = 5,
    *,
    tied: bool = False,
    B: bool = False,
    pairs: bool = False,
    step: str = "log_dt",
    prefix: str = "s4d.",
) -> Arrays:
    """`tied`: one A (and B) for all channels; `pairs`: real tensors with a last axis of 2."""
    shape = (N,) if tied else (H, N)

    def gauss(*of: int) -> np.ndarray:
        return (rng.normal(size=of) + 1j * rng.normal(size=of)).astype("c8")

    arrays = {
        "A": (-rng.uniform(0.2, 0.9, shape) + 1j * rng.uniform(0.1, 9.0, shape)).astype("c8"),
        "C": gauss(H, N),
        step: np.log(rng.uniform(0.05, 0.3, H)).astype("f4"),
        "D": rng.normal(size=H).astype("f4"),
    }
    if B:
        arrays["B"] = gauss(*shape)
    if pairs:
        arrays = {k: np.stack([a.real, a.imag], -1) if a.dtype.kind == "c" else a for k, a in arrays.items()}
    return {prefix + name: array for name, array in arrays.items()}
