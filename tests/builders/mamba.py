"""Tiny Mamba 1 and Mamba 2 checkpoints, and their recurrences written out step by step."""

from __future__ import annotations

import numpy as np

from tests.builders.named import Arrays


def mamba1_mixer(rng: np.random.Generator, prefix: str, H: int = 6, d: int = 8, N: int = 5, r: int = 2) -> Arrays:
    """A mixer in the names of mamba_ssm and transformers."""
    normal = lambda *shape: rng.normal(0, 0.5, shape).astype("f4")  # noqa: E731
    arrays = {
        "A_log": np.log(np.tile(np.arange(1.0, N + 1), (d, 1)) * rng.uniform(0.5, 2, (d, N))).astype("f4"),
        "D": normal(d),
        "in_proj.weight": normal(2 * d, H),
        "conv1d.weight": normal(d, 1, 4),
        "conv1d.bias": normal(d),
        "x_proj.weight": normal(r + 2 * N, d),
        "dt_proj.weight": normal(d, r),
        "dt_proj.bias": normal(d) - 1,
        "out_proj.weight": normal(H, d),
    }
    return {prefix + name: array for name, array in arrays.items()}


def mamba1_heads_mixer(
    rng: np.random.Generator, prefix: str, H: int = 6, h: int = 2, p: int = 4, N: int = 5, r: int = 2
) -> Arrays:
    """A mixer of h heads in the names of Zamba's first version."""
    normal = lambda *shape: rng.normal(0, 0.5, shape).astype("f4")  # noqa: E731
    arrays = {
        "A_log": np.log(rng.uniform(0.5, 5, (h, p, N))).astype("f4"),
        "D": normal(h, p),
        "in_proj.weight": normal(2 * h * p, H),
        "conv1d.weight": normal(h * p, 1, 4),
        "conv1d.bias": normal(h * p),
        "x_proj_weight": normal(h, r + 2 * N, p),
        "dt_proj_weight": normal(h, p, r),
        "dt_proj_bias": normal(h, p) - 1,
        "out_proj.weight": normal(H, h * p),
    }
    return {prefix + name: array for name, array in arrays.items()}


def mamba2_mixer(
    rng: np.random.Generator, prefix: str, H: int = 6, d: int = 8, N: int = 5, heads: int = 4, G: int = 2
) -> Arrays:
    """A mixer in the names of mamba_ssm and transformers."""
    normal = lambda *shape: rng.normal(0, 0.5, shape).astype("f4")  # noqa: E731
    channels = d + 2 * G * N
    arrays = {
        "A_log": np.log(rng.uniform(0.5, 4, heads)).astype("f4"),
        "D": normal(heads),
        "dt_bias": normal(heads) - 1,
        "in_proj.weight": normal(d + channels + heads, H),
        "conv1d.weight": normal(channels, 1, 4),
        "conv1d.bias": normal(channels),
        "norm.weight": 1 + normal(d),
        "out_proj.weight": normal(H, d),
    }
    return {prefix + name: array for name, array in arrays.items()}


def language_model(rng: np.random.Generator, version: int = 1, layers: int = 2, V: int = 11, **of: int) -> Arrays:
    """Tied embeddings, residual blocks with an RMS norm, a last norm."""
    H = of.get("H", 6)
    mixer = mamba1_mixer if version == 1 else mamba2_mixer
    arrays: Arrays = {"backbone.embeddings.weight": rng.normal(0, 1, (V, H)).astype("f4")}
    for layer in range(layers):
        arrays |= mixer(rng, f"backbone.layers.{layer}.mixer.", **of)
        arrays[f"backbone.layers.{layer}.norm.weight"] = rng.uniform(0.5, 1.5, H).astype("f4")
    return arrays | {"backbone.norm_f.weight": rng.uniform(0.5, 1.5, H).astype("f4")}


def stack(rng: np.random.Generator, layers: int = 2, features: int = 3, series: int = 2, outputs: int = 2) -> Arrays:
    """A linear map, blocks, and a head over the last steps of several sequences."""
    arrays = language_model(rng, layers=layers)
    del arrays["backbone.embeddings.weight"]
    arrays = {name.removeprefix("backbone."): array for name, array in arrays.items()}
    return arrays | {
        "input_layer.weight": rng.normal(0, 1, (6, features)).astype("f4"),
        "input_layer.bias": rng.normal(0, 1, 6).astype("f4"),
        "head.weight": rng.normal(0, 1, (outputs, 6 * series)).astype("f4"),
        "head.bias": rng.normal(0, 1, outputs).astype("f4"),
    }


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(x))


def rms(x: np.ndarray, weight: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def convolution(x: np.ndarray, taps: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(L, c) by an explicit sum over the past."""
    y = np.tile(bias.astype(float), (len(x), 1))
    for t in range(len(x)):
        for k in range(taps.shape[-1]):
            past = t - (taps.shape[-1] - 1) + k
            if past >= 0:
                y[t] += taps[:, 0, k] * x[past]
    return y


def mamba1(arrays: Arrays, prefix: str, u: np.ndarray) -> np.ndarray:
    """The published recurrence over (L, H), state by state."""
    p = {name.removeprefix(prefix): array.astype(float) for name, array in arrays.items() if name.startswith(prefix)}
    d, N = p["A_log"].shape
    r = p["dt_proj.weight"].shape[1]
    xz = u @ p["in_proj.weight"].T
    x, z = silu(convolution(xz[:, :d], p["conv1d.weight"], p["conv1d.bias"])), xz[:, d:]
    A, h, out = -np.exp(p["A_log"]), np.zeros((d, N)), []
    for t in range(len(u)):
        low = p["x_proj.weight"] @ x[t]
        step = softplus(p["dt_proj.weight"] @ low[:r] + p["dt_proj.bias"])
        B, C = low[r : r + N], low[r + N :]
        h = np.exp(step[:, None] * A) * h + step[:, None] * B[None] * x[t][:, None]
        out.append(p["out_proj.weight"] @ ((h @ C + p["D"] * x[t]) * silu(z[t])))
    return np.array(out)


def mamba2(arrays: Arrays, prefix: str, u: np.ndarray, G: int = 2) -> np.ndarray:
    """The published recurrence over (L, H), head by head."""
    p = {name.removeprefix(prefix): array.astype(float) for name, array in arrays.items() if name.startswith(prefix)}
    d, heads = p["out_proj.weight"].shape[1], len(p["A_log"])
    P, N = d // heads, (len(p["conv1d.bias"]) - d) // (2 * G)
    rows = u @ p["in_proj.weight"].T
    z, dt = rows[:, :d], rows[:, -heads:]
    xBC = silu(convolution(rows[:, d:-heads], p["conv1d.weight"], p["conv1d.bias"]))
    x, B, C = xBC[:, :d], xBC[:, d : d + G * N].reshape(-1, G, N), xBC[:, d + G * N :].reshape(-1, G, N)
    A, h, out = -np.exp(p["A_log"]), np.zeros((heads, P, N)), []
    for t in range(len(u)):
        step, y = softplus(dt[t] + p["dt_bias"]), np.zeros((heads, P))
        for head in range(heads):
            group = head // (heads // G)
            now = x[t].reshape(heads, P)[head]
            h[head] = np.exp(step[head] * A[head]) * h[head] + step[head] * np.outer(now, B[t, group])
            y[head] = h[head] @ C[t, group] + p["D"][head] * now
        gated = (y.reshape(-1) * silu(z[t])).reshape(G, -1)
        normed = gated / np.sqrt((gated**2).mean(-1, keepdims=True) + 1e-5)
        out.append(p["out_proj.weight"] @ (normed.reshape(-1) * p["norm.weight"]))
    return np.array(out)


def logits(arrays: Arrays, tokens: np.ndarray, version: int = 1) -> np.ndarray:
    """A language model's logits of one sequence."""
    h = arrays["backbone.embeddings.weight"][tokens].astype(float)
    layers = sum(name.endswith("A_log") for name in arrays)
    for layer in range(layers):
        u = rms(h, arrays[f"backbone.layers.{layer}.norm.weight"])
        h = h + (mamba1 if version == 1 else mamba2)(arrays, f"backbone.layers.{layer}.mixer.", u)
    h = rms(h, arrays["backbone.norm_f.weight"])
    return h @ arrays["backbone.embeddings.weight"].astype(float).T
