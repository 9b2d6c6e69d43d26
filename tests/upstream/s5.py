"""The published S5 model once more, as a plain float64 recurrence over the checkpoint's tensors.

Written from the paper (arXiv 2208.04933) and the layer's definition; shares nothing with the package.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


def recurrence(t: dict[str, np.ndarray], path: str, config: dict[str, Any], u: np.ndarray) -> np.ndarray:
    """One layer over one sequence: u (L, H) -> (L, H)."""
    t = {name.removeprefix(path): values.astype(np.float64) for name, values in t.items() if path in name}
    real = np.minimum(t["Lambda_re"], -1e-4) if config["clip_eigs"] else t["Lambda_re"]
    step = config["step_rescale"] * np.exp(t["log_step"][:, 0])
    drive = u @ (t["B"][..., 0] + 1j * t["B"][..., 1]).T
    outs = [t[key][..., 0] + 1j * t[key][..., 1] for key in ("C", "C1", "C2") if key in t]
    if config["bidirectional"] and len(outs) == 1:
        outs = [outs[0][:, : len(real)], outs[0][:, len(real) :]]
    y = np.zeros_like(u)
    for C, times in zip(outs, (range(len(u)), range(len(u) - 1, -1, -1))):
        for p in range(len(real)):
            a, state = complex(real[p], t["Lambda_im"][p]), 0j
            if config["discretization"] == "zoh":
                pole, gain = np.exp(a * step[p]), (np.exp(a * step[p]) - 1) / a
            else:
                pole = (1 + a * step[p] / 2) / (1 - a * step[p] / 2)
                gain = step[p] / (1 - a * step[p] / 2)
            for k in times:
                state = pole * state + gain * drive[k, p]
                y[k] += (2 if config["conj_sym"] else 1) * (C[:, p] * state).real
    return y + t["D"] * u


def model(
    tensors: dict[str, np.ndarray], config: dict[str, Any], x: np.ndarray, lengths: np.ndarray | None
) -> np.ndarray:
    """The whole model, one sequence at a time; tensor names as in a train state ("params/...")."""
    t = {name: values.astype(np.float64) for name, values in tensors.items()}
    dense = functools.partial(_dense, t)
    count = sum(name.endswith("Lambda_re") for name in t)

    def encode(sequence: np.ndarray, length: int | None) -> np.ndarray:
        if sequence.ndim == 1:
            sequence = np.eye(t["params/encoder/encoder/kernel"].shape[0])[sequence]
        v = dense("encoder/encoder", sequence)
        for i in range(count):
            v = block(t, config, i, v)
        if config["mode"] == "sequence":
            return v
        v = v[:length]
        return v[-1] if config["mode"] == "last" else v.mean(axis=0)

    rows = []
    for n in range(len(x)):
        length = None if lengths is None else lengths[n]
        if config["task"] == "retrieval":
            a, b = (encode(x[n, k], None if length is None else length[k]) for k in (0, 1))
            row = dense("decoder/layer2", _gelu(dense("decoder/layer1", np.concatenate([a, b, a - b, a * b]))))
        else:
            row = dense("decoder", encode(x[n], length))
        rows.append(row if config["task"] == "regression" else row - np.log(np.exp(row).sum(-1, keepdims=True)))
    return np.stack(rows)


def _dense(t: Any, path: str, v: np.ndarray) -> np.ndarray:
    return v @ t[f"params/{path}/kernel"] + t[f"params/{path}/bias"]


def block(t: Any, config: dict[str, Any], i: int, v: np.ndarray) -> np.ndarray:
    """Layer i with its norm, activation and skip connection, one sequence: v (L, H) -> (L, H)."""
    dense = functools.partial(_dense, t)
    path = f"encoder/layers_{i}"
    scale, bias = t[f"params/{path}/norm/scale"], t[f"params/{path}/norm/bias"]

    def norm(v: np.ndarray) -> np.ndarray:
        if config["norm"] == "batch":
            mean, var = t[f"batch_stats/{path}/norm/mean"], t[f"batch_stats/{path}/norm/var"]
            return (v - mean) / np.sqrt(var + 1e-5) * scale + bias
        return (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-6) * scale + bias

    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    y = recurrence(t, f"params/{path}/seq/", config, norm(v) if config["prenorm"] else v)
    if config["activation"] == "gelu":
        y = _gelu(y)
    elif config["activation"] == "half_glu2":
        y = y * sigmoid(dense(f"{path}/out2", _gelu(y)))
    else:
        gate = sigmoid(dense(f"{path}/out2", _gelu(y)))
        y = (dense(f"{path}/out1", _gelu(y)) if config["activation"] == "full_glu" else _gelu(y)) * gate
    return v + y if config["prenorm"] else norm(v + y)


def _gelu(z: np.ndarray) -> np.ndarray:
    return z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
