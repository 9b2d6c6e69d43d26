"""The feed-forward networks between DeepSSM's (DecodEPFL) and DLRU's layers, over named parameters (JAX).

| name there | tensors | what it computes |
|---|---|---|
| GLU | `output_linear.0` | GLU(W gelu(x) + b) |
| MLP | `c_fc`, `c_proj`; later `net.*` | linear maps in a row with a gelu before the last |
| LGLU2 | `A.W_raw`, `B.W_raw`, `raw_lip` | softplus(raw_lip)·tanh(A x)·σ(B x) with ‖A‖₂ ≤ 3/4 and ‖B‖₂ ≤ 1 |
| LGLU | `lin.parametrizations.weight.*`, `raw_lip` | softplus(raw_lip)·GLU(W x / uᵀWv) |
| LMLP | `model.*` | sandwich layers (arXiv 2301.11526), each scaled by the Lipschitz bound `lip` |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lastcli.families.lru.names import net_of, sandwiches_of
from lastcli.families.parts.blocks import along, glu, linear

__all__ = ["dense", "feed"]

Params = Mapping[str, Any]


def dense(params: Params, path: str, x: Any) -> Any:
    """The linear map at `path`, with its bias where it has one."""
    return linear(x, params[f"{path}/weight"], params.get(f"{path}/bias"))


def feed(params: Params, path: str, x: Any, bound: float) -> Any:
    """The network at `path` (a block's `ff`), whichever its tensors are those of.

    Args:
        bound: the factor of every sandwich layer, which no tensor tells.
    """
    block = path.removesuffix("/ff")
    if f"{path}/c_fc/weight" in params:
        return dense(params, f"{path}/c_proj", jax.nn.gelu(dense(params, f"{path}/c_fc", x), approximate=False))
    if f"{path}/raw_lip" in params:
        return _bounded_glu(params, path, x)
    sandwiches = sandwiches_of(params, block)
    if sandwiches:
        x = bound * x
        for number in sandwiches:
            x = _sandwich(params, f"{path}/model/{number}", bound * x)
        return x
    numbers = net_of(params, block)
    if numbers is not None:
        for number in numbers[:-1]:
            x = dense(params, f"{path}/net/{number}", x)
        return dense(params, f"{path}/net/{numbers[-1]}", jax.nn.gelu(x, approximate=False))
    return glu(dense(params, f"{path}/output_linear/0", jax.nn.gelu(x, approximate=False)))


def _bounded_glu(params: Params, path: str, x: Any) -> Any:
    """ "LGLU2", whose matrices are scaled down where their norms are larger, or "LGLU", whose norm training kept."""
    lip = along(jax.nn.softplus(params[f"{path}/raw_lip"]) + 1e-6, x.ndim)
    if f"{path}/A/W_raw" in params:
        value, gate = (
            linear(x, W / jnp.maximum(jnp.linalg.svd(W, compute_uv=False)[0] / limit, 1.0))
            for W, limit in ((params[f"{path}/A/W_raw"], 0.75), (params[f"{path}/B/W_raw"], 1.0))
        )
        return lip * jnp.tanh(value) * jax.nn.sigmoid(gate)
    stored = f"{path}/lin/parametrizations/weight"
    W, u, v = (params[f"{stored}/{part}"] for part in ("original", "0/_u", "0/_v"))
    return lip * glu(linear(x, W / (u @ (W @ v))))


def _sandwich(params: Params, path: str, x: Any) -> Any:
    """√2 Aᵀ Ψ relu(√2 Ψ⁻¹ B x) with [A B] orthogonal; the last layer, which has no Ψ, is B x."""
    W = params[f"{path}/weight"]
    outputs = W.shape[0]
    Q = _cayley(params[f"{path}/alpha"].reshape(()) * W / jnp.linalg.norm(W))
    x = linear(x, Q[:, outputs:])
    if f"{path}/psi" not in params:
        return x
    scale = along(jnp.exp(params[f"{path}/psi"]), x.ndim)
    return math.sqrt(2) * linear(scale * jax.nn.relu(math.sqrt(2) * x / scale), Q[:, :outputs].T)


def _cayley(W: Any) -> Any:
    """The wide matrix with orthonormal rows that the Cayley transform makes of W (n, n + m)."""
    n = W.shape[0]
    U, V = W[:, :n].T, W[:, n:].T
    A = U - U.T + V.T @ V
    inverse = jnp.linalg.inv(jnp.eye(n, dtype=W.dtype) + A)
    return jnp.concatenate([inverse @ (jnp.eye(n, dtype=W.dtype) - A), -2 * V @ inverse]).T
