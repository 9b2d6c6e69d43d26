"""Tiny layers of aTENNuate, and its denoiser."""

from __future__ import annotations

import numpy as np

from tests.builders.named import Arrays


def attenuate_layer(rng: np.random.Generator, N: int = 6, m: int = 3, p: int = 2, prefix: str = "ssm.") -> Arrays:
    """Real B and C around complex poles with a step each."""
    return {
        f"{prefix}log_dt": np.log(rng.uniform(0.05, 0.3, N)).astype("f4"),
        f"{prefix}A": np.stack([rng.normal(-0.5, 0.5, N), rng.uniform(0.2, 9.0, N)], axis=-1).astype("f4"),
        f"{prefix}B": rng.normal(size=(N, m)).astype("f4"),
        f"{prefix}C": rng.normal(size=(p, N)).astype("f4"),
    }


def denoiser(
    rng: np.random.Generator, channels: tuple[int, ...] = (1, 3, 4), factors: tuple[int, ...] = (2, 3)
) -> Arrays:
    """The model around the layers: down, up, two in the middle and two at last, in the order of its constructor."""

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.5, shape).astype("f4")

    def block(path: str, width: int, activated: bool = True) -> Arrays:
        at = int(width > 1)
        arrays = attenuate_layer(rng, 5, width, width, f"{path}.{at}.")
        if width > 1:
            arrays |= {f"{path}.0.weight": normal(width, 1, 3), f"{path}.0.bias": normal(width)}
            if activated:
                norm = f"{path}.{at + 1}.layer_norm"
                arrays |= {f"{norm}.weight": 1 + normal(width), f"{norm}.bias": normal(width)}
        return arrays

    arrays: Arrays = {}
    for i, (inside, outside, factor) in enumerate(zip(channels, channels[1:], factors)):
        arrays |= block(f"down_ssms.{i}.0", inside) | {f"down_ssms.{i}.1.weight": normal(inside, outside, factor)}
    for i, (inside, outside, factor) in enumerate(zip(channels[1:], channels, factors)):
        arrays |= {f"up_ssms.{i}.0.weight": normal(inside, outside, factor)} | block(f"up_ssms.{i}.1", outside)
    for i in range(2):
        arrays |= block(f"hid_ssms.{i}", channels[-1])
    for i in range(2):
        arrays |= block(f"last_ssms.{i}", channels[0], activated=i == 0)
    return arrays
