"""DeepSSM (DecodEPFL) as its later code defines it, over one sequence: float64 NumPy and a plain recurrence."""

from __future__ import annotations

import math

import numpy as np

from tests.builders.named import Arrays
from tests.upstream.layers import lru


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def deep_ssm(arrays: Arrays, x: np.ndarray, lip: float = 1.0) -> np.ndarray:
    """(L, features) → (L, outputs)."""
    t = {name: a.astype(float) for name, a in arrays.items() if ".lru." not in name}
    h, i = x @ t["encoder.weight"].T, 0
    while f"blocks.{i}.lru.nu_log" in arrays:
        block = f"blocks.{i}."
        own = {name.removeprefix(f"{block}lru."): a for name, a in arrays.items() if name.startswith(f"{block}lru.")}
        own = {"Bp": own["B"], **own} if "B" in own else own
        ff = {name.removeprefix(f"{block}ff."): a for name, a in t.items() if name.startswith(f"{block}ff.")}
        y = lru(own, {}, h)
        if f"{block}ssm_res_logit" in t:
            h = h + sigmoid(t[f"{block}ssm_res_logit"]) * y
            h = h + sigmoid(t[f"{block}ff_res_logit"]) * feed(ff, h, lip)
        else:
            gate = sigmoid(t[f"{block}res_logit"]) if f"{block}res_logit" in t else 1.0
            h = h + gate * feed(ff, y, lip)
        i += 1
    return h @ t["decoder.weight"].T


def feed(t: Arrays, x: np.ndarray, lip: float) -> np.ndarray:
    """A feed-forward network, told by its tensors."""
    if "net.0.weight" in t:
        return gelu(x @ t["net.0.weight"].T @ t["net.1.weight"].T) @ t["net.3.weight"].T
    if "model.1.psi" in t:
        x = lip * x
        for layer in sorted({name.rpartition(".")[0] for name in t}):
            x = sandwich({name.rpartition(".")[2]: a for name, a in t.items() if name.startswith(layer)}, lip * x)
        return x
    if "raw_lip" in t:
        bound = np.log1p(np.exp(t["raw_lip"])) + 1e-6
        if "A.W_raw" in t:
            A, B = (
                W / max(np.linalg.norm(W, 2) / limit, 1.0) for W, limit in ((t["A.W_raw"], 0.75), (t["B.W_raw"], 1.0))
            )
            return np.tanh(x @ A.T) * sigmoid(x @ B.T) * bound
        stored = "lin.parametrizations.weight."
        W = t[f"{stored}original"]
        value, gate = np.split(x @ (W / (t[f"{stored}0._u"] @ W @ t[f"{stored}0._v"])).T, 2, axis=1)
        return value * sigmoid(gate) * bound
    value, gate = np.split(gelu(x) @ t["output_linear.0.weight"].T + t["output_linear.0.bias"], 2, axis=1)
    return value * sigmoid(gate)


def sandwich(t: Arrays, x: np.ndarray) -> np.ndarray:
    """A 1-Lipschitz layer: [A B] is the Cayley transform of its weight, (n, n + m) with orthonormal rows."""
    W = t["weight"] * t["alpha"] / np.linalg.norm(t["weight"])
    n = len(W)
    U, V = W[:, :n], W[:, n:]
    Z, eye = U.T - U + V @ V.T, np.eye(n)
    A, B = np.linalg.solve(eye + Z, eye - Z).T, (-2 * V.T @ np.linalg.inv(eye + Z)).T
    np.testing.assert_allclose(A @ A.T + B @ B.T, eye, atol=1e-9)
    x = x @ B.T
    if "psi" not in t:
        return x
    return math.sqrt(2) * (np.maximum(math.sqrt(2) * x * np.exp(-t["psi"]), 0) * np.exp(t["psi"])) @ A
