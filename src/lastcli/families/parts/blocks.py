"""Building blocks of the published architectures over named tensors (JAX): linear maps, norms, activations, pooling.

Everything is a pure function, traceable by `jax.jit`. Import this module only inside functions that compute.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["activation", "along", "as_features", "class_scores", "glu", "layer_norm", "linear", "pool", "rms_norm"]

Array = Any


def as_features(x: Array, features: int, dtype: Any) -> Array:
    """Inputs (n, L, F) in the model's precision: integer tokens (n, L) one-hot, a single feature given its axis."""
    if x.ndim == 2:
        if jnp.issubdtype(x.dtype, jnp.integer) and features > 1:
            return jax.nn.one_hot(x, features, dtype=dtype)
        x = x[..., None]
    return x.astype(dtype)


def along(vector: Array, ndim: int) -> Array:
    """(F,) → (1, …, 1, F): what acts along the last axis of an array of `ndim` axes."""
    return lax.broadcast_to_rank(vector, ndim)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x Wᵀ + b with PyTorch's weight (out, in); a 1×1 convolution's (out, in, 1) is the same map."""
    weight = weight.reshape(weight.shape[0], weight.shape[1])
    y = jnp.einsum("...i,oi->...o", x, weight, precision=lax.Precision.HIGHEST)
    return y if bias is None else y + along(bias.reshape(-1), y.ndim)


def layer_norm(x: Array, scale: Array, bias: Array | None, eps: float) -> Array:
    """Layer normalisation over the last axis."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
    y = (x - mean) * lax.rsqrt(variance + eps) * along(scale, x.ndim)
    return y if bias is None else y + along(bias, x.ndim)


def rms_norm(x: Array, scale: Array, eps: float) -> Array:
    """Root mean square normalisation over the last axis."""
    return x * lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + eps) * along(scale, x.ndim)


def glu(x: Array) -> Array:
    """Gated linear unit over the last axis: the first half times the sigmoid of the second."""
    value, gate = jnp.split(x, 2, axis=-1)
    return value * jax.nn.sigmoid(gate)


def activation(name: str, x: Array) -> Array:
    """The activation called `name`; "gelu" is the exact one, "gelu_tanh" flax's default approximation."""
    if name == "gelu":
        return jax.nn.gelu(x, approximate=False)
    if name == "gelu_tanh":
        return jax.nn.gelu(x, approximate=True)
    if name == "glu":
        return glu(x)
    if name in ("none", "id"):
        return x
    return {"relu": jax.nn.relu, "silu": jax.nn.silu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}[name](x)


def class_scores(outputs: Array, task: str) -> Array:
    """What published flax models make of their head's outputs: log-probabilities of classes, if there are several.

    One output alone is a logit, and so is each of independent labels (`task` "multilabel").
    """
    if task not in ("classification", "retrieval") or outputs.shape[-1] == 1:
        return outputs
    return jax.nn.log_softmax(outputs)


def pool(h: Array, mode: str, lengths: Array | None) -> Array:
    """(n, L, H) → (n, H): the mean over time or the last step (of the true lengths); "sequence" keeps every step."""
    if mode == "sequence":
        return h
    if lengths is None:
        return h.mean(axis=1) if mode == "pool" else h[:, -1]
    if mode == "pool":
        inside = jnp.arange(h.shape[1])[None] < lengths[:, None]
        return jnp.where(inside[..., None], h, 0).sum(axis=1) / jnp.maximum(lengths, 1)[:, None].astype(h.dtype)
    return jnp.take_along_axis(h, (jnp.maximum(lengths, 1) - 1)[:, None, None], axis=1)[:, 0]
