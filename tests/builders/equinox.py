"""Tiny checkpoints of the equinox model, as model and state are written, around every kind of layer."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tests.builders.linoss import linoss_layer
from tests.builders.lru import flax_layer
from tests.builders.named import Arrays
from tests.builders.s5 import s5_layer

FEATURES, WIDTH, STATES, OUTPUTS = 2, 4, 5, 3
LAYERS = {
    "linoss": ("ssm", lambda rng: linoss_layer(rng, STATES, WIDTH)),
    "lru": ("lru", lambda rng: flax_layer(rng, STATES, WIDTH)),
    "s5": ("ssm", lambda rng: {k: v.astype("f4") for k, v in s5_layer(rng, STATES, WIDTH).items()}),
}


def equinox_model(kind: str = "linoss", *, blocks: int = 2, seed: int = 0, head: str = "linear_layer") -> Arrays:
    """The whole model in the names of its attributes; `head` is `linear_layer`, `linear_decoder` or `dual_head`."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}

    def linear(path: str, inputs: int, outputs: int) -> None:
        arrays[f"{path}.weight"] = rng.normal(0, 0.7, (outputs, inputs)).astype("f4")
        arrays[f"{path}.bias"] = rng.normal(0, 0.7, outputs).astype("f4")

    linear("linear_encoder", FEATURES, WIDTH)
    name, layer = LAYERS[kind]
    for i in range(blocks):
        arrays |= {f"blocks.{i}.{name}.{leaf}": values for leaf, values in layer(rng).items()}
        linear(f"blocks.{i}.glu.w1", WIDTH, WIDTH)
        linear(f"blocks.{i}.glu.w2", WIDTH, WIDTH)
        arrays[f"blocks.{i}.norm.running_mean"] = rng.normal(size=WIDTH).astype("f4")
        arrays[f"blocks.{i}.norm.running_var"] = rng.uniform(0.3, 3, WIDTH).astype("f4")
    if head == "dual_head":
        for part, inputs, outputs in (("1", 2 * WIDTH, WIDTH), ("2", WIDTH, WIDTH // 2), ("3", WIDTH // 2, OUTPUTS)):
            linear(f"dual_head.layer{part}", inputs, outputs)
    else:
        linear(head, WIDTH, OUTPUTS)
    return arrays


def renamed(arrays: Arrays, *changes: tuple[str, str]) -> Arrays:
    """The checkpoint with every pattern replaced in its names."""
    for pattern, new in changes:
        arrays = {re.sub(pattern, new, name): values for name, values in arrays.items()}
    return arrays


def without(arrays: Arrays, part: str) -> Arrays:
    """The checkpoint without the tensors whose names have `part`."""
    return {name: values for name, values in arrays.items() if part not in name}


def some_inputs(n: int = 3, length: int = 11, seed: int = 9) -> Any:
    return np.random.default_rng(seed).normal(size=(n, length, FEATURES)).astype("f4")
