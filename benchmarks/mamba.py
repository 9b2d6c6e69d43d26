"""Small Mamba models trained here and reduced: characters of Python's own documentation, and associative recall.

    python -m benchmarks.mamba [--seeds 3] [--steps 1200] [--out FOLDER]

Mamba 1 predicts the next character, Mamba 2 answers which value a key had; both are trained from nothing with Adam,
calibrated on inputs they were trained on, and measured on others. Minutes on two cores. Prints two Markdown tables:
mean over the seeds of the rise of the loss (nats), and of the accuracy.

For the published models, whoever has their folders:

    last sweep mamba-130m --ratios 0.5 --methods obs,contribution,uniform-magnitude --refits none,calibrated \\
        --calibration train.npz --data wikitext.npz --metric perplexity

and the same for mamba2-130m; GHOST publishes a perplexity about 1 higher at 50% of the states.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import statistics
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lastcli
from benchmarks.machine import machine
from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.engine.selective.pytrees import S6System, SSDSystem
from lastcli.families import family_named
from lastcli.families.base import Layer
from lastcli.families.mamba.model import around, model_forward

HEADS, GROUPS, TAPS = 4, 1, 4
KEYS = 16

METHODS = (
    ("last", "none"),
    ("aire", "none"),
    ("random", "none"),
    ("uniform-magnitude", "none"),
    ("contribution", "none"),
    ("contribution", "calibrated"),
    ("obs", "calibrated"),
)


def characters(n: int, length: int, seed: int, *, held_out: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """(n, length) characters, the next ones, and how many there are; the last tenth of the text is held out."""
    text = "".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
    known = sorted(set(text))
    ids = np.array([known.index(c) for c in text], np.int32)
    cut = len(ids) * 9 // 10
    part = ids[cut:] if held_out else ids[:cut]
    starts = np.random.default_rng(seed).integers(0, len(part) - length - 1, n)
    rows = part[starts[:, None] + np.arange(length + 1)]
    return rows[:, :-1], rows[:, 1:], len(known)


def recall(n: int, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Keys with values, then keys again: the label behind a repeated key is its value, all others are not scored."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 3 * pairs), np.int32)
    y = np.full(x.shape, -100, np.int32)
    for row in range(n):
        keys = rng.permutation(KEYS)[:pairs]
        values = KEYS + rng.integers(0, KEYS, pairs)
        order = rng.permutation(pairs)
        x[row, 0 : 2 * pairs : 2], x[row, 1 : 2 * pairs : 2], x[row, 2 * pairs :] = keys, values, keys[order]
        y[row, 2 * pairs :] = values[order]
    return x, y, 2 * KEYS


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
    """The tensors after Adam with a half cosine on minibatches of 32."""
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
        rows = random.integers(0, len(data[0]), 32)
        tensors, state = step(tensors, state, data[0][rows], data[1][rows])
    return {name: np.asarray(array) for name, array in tensors.items()}


def measured(folder: Path, version: int, seed: int, steps: int, counts: list[int]) -> dict[tuple, float]:
    """{(method, refit, states): value}, and the full model's under (None, None, its states)."""
    states, layers = (16, 2) if version == 1 else (32, 2)
    if version == 1:
        x, y, vocabulary = characters(2000, 128, seed, held_out=False)
        test = characters(200, 128, 1000 + seed, held_out=True)
    else:
        x, y, vocabulary = recall(8000, 8, seed)
        test = recall(1000, 8, 1000 + seed)
    rate = 4e-3 if version == 1 else 2e-3
    tensors = train(version, initial(version, vocabulary, 64, states, layers, seed), (x, y), steps, rate, seed)
    path = folder / f"mamba{version}_s{seed}.safetensors"
    containers.write(path, [TensorSource.of(*item) for item in tensors.items()], metadata={}, force=True)
    np.savez(folder / "test.npz", x=test[0], y=test[1])
    np.savez(folder / "calibration.npz", x=x[:200])
    metric = "nll" if version == 1 else "accuracy"
    found: dict[tuple, float] = {}
    for refit in dict.fromkeys(refit for _, refit in METHODS):
        methods = [method for method, own in METHODS if own == refit]
        result = lastcli.sweep(
            path,
            data=folder / "test.npz",
            calibration=folder / "calibration.npz",
            ratios=[str(1 - count / states) for count in counts],
            methods=methods,
            refits=refit,
            metric=metric,
            seed=seed,
        )
        found[None, None, states] = result.baseline
        runs = [(method, count) for method in methods for count in counts]
        for (method, count), row in zip(runs, result.rows, strict=True):
            assert row.layers == (count,) * layers
            found[method, refit, count] = row.drop if version == 1 else row.value
    return found


def table(version: int, runs: list[dict[tuple, float]], counts: list[int]) -> list[str]:
    """Lines of Markdown, mean over the runs."""
    (full,) = {key for key in runs[0] if key[0] is None}
    what = "rise of the loss (nats) of Mamba 1 on characters" if version == 1 else "accuracy of Mamba 2 on recall"
    lines = [
        f"{what}, mean of {len(runs)} seeds; full model {statistics.mean(run[full] for run in runs):.4f}",
        "",
        f"| states kept of {full[2]} | " + " | ".join(map(str, counts)) + " |",
        "|---" * (1 + len(counts)) + "|",
    ]
    for method, refit in METHODS:
        cells = [f"{statistics.mean(run[method, refit, count] for run in runs):.4f}" for count in counts]
        lines.append(f"| {method}{'' if refit == 'none' else ' + ' + refit} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Train, reduce, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1200, help="of Adam, for each model")
    parser.add_argument("--models", default="1,2", help="which of Mamba 1 and 2")
    parser.add_argument("--out", type=Path, help="keep the trained models there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for version, counts in ((1, [8, 4, 2]), (2, [16, 8, 6])):
            if str(version) not in options.models.split(","):
                continue
            runs = [measured(folder, version, seed, options.steps, counts) for seed in range(options.seeds)]
            print("\n".join(table(version, runs, counts)), end="\n\n", flush=True)
    print(f"Printed by `python -m benchmarks.mamba`; {machine()}.")


if __name__ == "__main__":
    main()
