"""Small Mamba models, initialised as published and trained with Adam."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lastcli.containers.base import TensorSource
from lastcli.engine.selective.pytrees import S6System, SSDSystem
from lastcli.families import family_named
from lastcli.families.base import Layer
from lastcli.families.mamba.model import around, model_forward

__all__ = ["initial", "train"]

HEADS, GROUPS, TAPS, BATCH = 4, 1, 4, 32


def initial(version: int, vocabulary: int, width: int, states: int, layers: int, seed: int) -> dict[str, np.ndarray]:
    """Tensors in transformers' names, initialised as published: A = -1…-N (Mamba 2: -1…-16), steps of 0.001 to 0.1."""
    rng = np.random.default_rng(seed)
    d, rank = 2 * width, max(width // 16, 1)
    tensors = {"backbone.embeddings.weight": rng.normal(0, 0.5, (vocabulary, width))}
    for layer in range(layers):
        base = f"backbone.layers.{layer}.mixer."
        channels = d if version == 1 else d + 2 * GROUPS * states
        steps = np.exp(rng.uniform(np.log(1e-3), np.log(0.1), d if version == 1 else HEADS))
        bias = steps + np.log(-np.expm1(-steps))
        own = {
            "conv1d.weight": rng.normal(0, 0.5 / TAPS**0.5, (channels, 1, TAPS)),
            "conv1d.bias": np.zeros(channels),
            "out_proj.weight": rng.normal(0, d**-0.5, (width, d)),
        }
        if version == 1:
            own |= {
                "A_log": np.log(np.tile(np.arange(1.0, states + 1), (d, 1))),
                "D": np.ones(d),
                "in_proj.weight": rng.normal(0, width**-0.5, (2 * d, width)),
                "x_proj.weight": rng.normal(0, d**-0.5, (rank + 2 * states, d)),
                "dt_proj.weight": rng.normal(0, rank**-0.5, (d, rank)),
                "dt_proj.bias": bias,
            }
        else:
            own |= {
                "A_log": np.log(rng.uniform(1, 16, HEADS)),
                "D": np.ones(HEADS),
                "dt_bias": bias,
                "in_proj.weight": rng.normal(0, width**-0.5, (d + channels + HEADS, width)),
                "norm.weight": np.ones(d),
            }
        tensors |= {base + name: array for name, array in own.items()}
        tensors[f"backbone.layers.{layer}.norm.weight"] = np.ones(width)
    tensors["backbone.norm_f.weight"] = np.ones(width)
    return {name: np.asarray(array, np.float32) for name, array in tensors.items()}


def mixer(version: int, tensors: dict, base: str) -> S6System | SSDSystem:
    """A mixer of traced tensors."""
    p = {name.removeprefix(base): array for name, array in tensors.items() if name.startswith(base)}
    shared = {"out_proj": p["out_proj.weight"], "out_bias": None, "D": p["D"], "A": -jnp.exp(p["A_log"])}
    d = p["out_proj.weight"].shape[1]
    if version == 1:
        N, rank = p["A_log"].shape[1], p["dt_proj.weight"].shape[1]
        step, B, C = jnp.split(p["x_proj.weight"], [rank, rank + N])
        return S6System(
            **shared, in_proj=p["in_proj.weight"], in_bias=None, conv=p["conv1d.weight"][:, 0],
            conv_bias=p["conv1d.bias"], to_step=step, to_B=B, to_C=C, step_proj=p["dt_proj.weight"],
            step_bias=p["dt_proj.bias"],
        )  # fmt: skip
    N = (len(p["conv1d.bias"]) - d) // (2 * GROUPS)
    ends = np.cumsum([d, d, GROUPS * N, GROUPS * N])
    z, x, B, C, step = jnp.split(p["in_proj.weight"], ends)
    taps, biases = (jnp.split(a, ends[1:3] - d) for a in (p["conv1d.weight"][:, 0], p["conv1d.bias"]))
    by_group = lambda array: array.reshape(GROUPS, N, *array.shape[1:])  # noqa: E731
    return SSDSystem(
        **shared, to_z=z, to_x=x, to_B=by_group(B), to_C=by_group(C), to_step=step, z_bias=None, x_bias=None,
        B_bias=None, C_bias=None, dt_bias=None, conv_x=taps[0], conv_B=by_group(taps[1]), conv_C=by_group(taps[2]),
        conv_x_bias=biases[0], conv_B_bias=by_group(biases[1]), conv_C_bias=by_group(biases[2]),
        step_bias=p["dt_bias"], norm=p["norm.weight"], norm_groups=GROUPS,
    )  # fmt: skip


def train(version: int, tensors: dict, data: tuple[np.ndarray, np.ndarray], steps: int, rate: float, seed: int) -> dict:
    """The tensors after Adam with a half cosine on minibatches."""
    family = family_named("mamba" if version == 1 else "mamba2")
    bases = [name[: -len("A_log")] for name in tensors if name.endswith("A_log")]
    infos = {name: TensorSource.of(name, array).info for name, array in tensors.items()}
    config = {option.key: option.default for option in family.options}
    layers: tuple[Layer, ...] = family.layers(infos, config)
    forward = model_forward(infos, config, around(infos, layers, bases))
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, steps)))

    def loss(tensors: dict, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = forward.apply(tensors, [mixer(version, tensors, base) for base in bases], x)[0]
        scored = y >= 0
        each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(scored, y, 0))
        return jnp.where(scored, each, 0).sum() / scored.sum()

    @jax.jit
    def step(tensors: dict, state: optax.OptState, x: jax.Array, y: jax.Array) -> tuple[dict, optax.OptState]:
        updates, state = optimiser.update(jax.grad(loss)(tensors, x, y), state)
        return optax.apply_updates(tensors, updates), state

    random, state = np.random.default_rng(seed), optimiser.init(tensors)
    for _ in range(steps):
        rows = random.integers(0, len(data[0]), BATCH)
        tensors, state = step(tensors, state, data[0][rows], data[1][rows])
    return {name: np.asarray(array) for name, array in tensors.items()}
