"""One Mega layer as pure functions (JAX): moving average, gated attention in chunks, feed-forward network, norms.

With x the (normed) input and u the residual (Ma et al., arXiv 2209.10655, section 3.2)::

    m = silu(EMA(x))                        [φ, ζ, ρ, χ] = m W + b
    z = silu(ζ), r = silu(ρ)                q = z γ₀ + β₀, k = z γ₁ + β₁, v = act(x W_v + b_v)
    h = act(χ + (f(q kᵀ + bias) v ∘ r) W_h + b_h)
    y = σ(φ) ∘ h + (1 - σ(φ)) ∘ u

Import this module only inside functions that compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lastcli.engine.pytrees import DiagonalSystem
from lastcli.engine.simulate import simulate
from lastcli.errors import InputError, UnsupportedModelError
from lastcli.families.parts.blocks import along, layer_norm, linear

__all__ = ["ACTIVATIONS", "Settings", "Steps", "below", "feed_forward", "gated_attention", "moving_average", "norm"]

Array = Any
Params = Mapping[str, Array]

_EXACT = lax.Precision.HIGHEST
_EPS = 1e-5  # of every norm of the published code
# Where the Laplace attention function is centred, and its spread: √(1/2) and √(1/(4π)), as rounded in the code.
_LAPLACE_MEAN, _LAPLACE_SPREAD = 0.707107, 0.282095

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_accurate": lambda x: jax.nn.gelu(x, approximate=True),
    "linear": lambda x: x,
}


@dataclass(frozen=True)
class Settings:
    """What a model's layers have in common.

    Attributes:
        norm: "layernorm", "scalenorm", "rmsnorm", "batchnorm", or "scale" (a product with the weight, nothing else).
        prenorm, ffn_prenorm: norm before the attention and the feed-forward network instead of after the skip.
        activation: a key of `ACTIVATIONS`.
        attention: "softmax", "relu2" or "laplace".
        chunk: steps that attend to each other; None for all.
        partial_chunks: whether the last chunk may be padded.
        reach: half the length of a learned position bias, as the code centres it; None for a rotary one.
        truncation: lags of the moving average from here on are cut off; None for none.
        skip_present: whether the backward half of the moving average leaves the present step out.
    """

    norm: str
    prenorm: bool
    ffn_prenorm: bool
    activation: str
    attention: str
    chunk: int | None
    partial_chunks: bool
    reach: int | None
    truncation: int | None
    skip_present: bool


@dataclass(frozen=True)
class Steps:
    """Which steps of a batch are real.

    Attributes:
        valid: (n, L) bool, or None where all are.
        lengths: (n,) up to where a sequence goes, or None for L.
    """

    valid: Array | None
    lengths: Array | None

    def only(self, x: Array) -> Array:
        """x (n, L, D) with zeros in the padding."""
        return x if self.valid is None else jnp.where(self.valid[..., None], x, 0)


def norm(kind: str, own: Params, x: Array) -> Array:
    """One of the published norms over the last axis, with the weights there are; batch norm by its statistics."""
    weight, bias = own.get("weight", own.get("scalar", 1.0)), own.get("bias")
    if kind == "layernorm":
        return layer_norm(x, weight, bias, _EPS)
    if kind == "batchnorm":
        mean, variance = (along(own[f"running_{part}"], x.ndim) for part in ("mean", "var"))
        y = (x - mean) * lax.rsqrt(variance + _EPS) * along(weight, x.ndim)
        return y if bias is None else y + along(bias, x.ndim)
    scaled = x * along(weight, x.ndim)
    if kind == "scale":
        return scaled
    return scaled * lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + _EPS)


def gated_attention(
    own: Params, system: DiagonalSystem, x: Array, steps: Steps, settings: Settings
) -> tuple[Array, Array]:
    """The layer's output (n, L, D), and what its moving average gets (n, L, D or 2D).

    Args:
        own: the layer's tensors by their fairseq names below `mega_layer.`.
    """
    act, residual = ACTIVATIONS[settings.activation], x
    width, hidden = own["h_proj.weight"].shape
    if settings.prenorm:
        x = norm(settings.norm, below(own, "norm.norm."), x)
    v = act(_dense(own, "v_proj", x))
    average, u = moving_average(system, x, steps, settings)
    base = _dense(own, "mx_proj", jax.nn.silu(average))
    update, gates, skip = jnp.split(base, [width, base.shape[-1] - width], axis=-1)
    z, r = jnp.split(jax.nn.silu(gates), [gates.shape[-1] - hidden], axis=-1)
    q, k = (z * along(own["gamma"][i], z.ndim) + along(own["beta"][i], z.ndim) for i in (0, 1))
    h = _attend(below(own, "rel_pos_bias."), q, k, v, steps.valid, settings)
    h = act(skip + _dense(own, "h_proj", h * r))
    y = residual + jax.nn.sigmoid(update) * (h - residual)
    return y if settings.prenorm else norm(settings.norm, below(own, "norm.norm."), y), u


def feed_forward(own: Params, x: Array, settings: Settings) -> Array:
    """x + fc2(act(fc1(x))) with its norm; `own` are the tensors below `nffn.`."""
    normed = norm(settings.norm, below(own, "norm.norm."), x) if settings.ffn_prenorm else x
    y = x + _dense(own, "fc2", ACTIVATIONS[settings.activation](_dense(own, "fc1", normed)))
    return y if settings.ffn_prenorm else norm(settings.norm, below(own, "norm.norm."), y)


def moving_average(system: DiagonalSystem, x: Array, steps: Steps, settings: Settings) -> tuple[Array, Array]:
    """The damped EMA of x (n, L, D), and the input of its systems: with 2D groups x beside x reversed."""
    u, width = steps.only(x), x.shape[-1]
    both = system.groups == 2 * width
    if both:
        u = jnp.concatenate([u, _reverse(u, steps.lengths)], axis=-1)
    y = _truncated(system, u, settings.truncation)
    if both:
        back = y[..., width:]
        if settings.skip_present:
            first = jnp.einsum("gn,gn->g", system.C[width:, 0, 0], system.B[width:, :, 0], precision=_EXACT)
            back = back - first.real[None, None] * u[..., width:]
        y = y[..., :width] + _reverse(back, steps.lengths)
    return y.astype(x.dtype), u


def _reverse(x: Array, lengths: Array | None) -> Array:
    """x (n, L, D) backwards in time, every sequence within its own length; the padding stays where it is."""
    if lengths is None:
        return x[:, ::-1]
    step = jnp.arange(x.shape[1])[None]
    index = jnp.where(step < lengths[:, None], lengths[:, None] - 1 - step, step)
    return jnp.take_along_axis(x, index[..., None], axis=1)


def below(params: Params, prefix: str) -> dict[str, Array]:
    """What stands below `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


def _truncated(system: DiagonalSystem, u: Array, lags: int | None) -> Array:
    """The response to the last `lags` steps only: what came before is C λ^lags x, late by `lags`."""
    y, length = simulate(system, u), u.shape[1]
    if lags is None or lags >= length:
        return y
    late = system.C * lax.integer_pow(system.poles, lags)[:, None, None, :]
    rest = simulate(system.replace(C=late, D=None, feedthrough="none"), u[:, : length - lags])
    return y - jnp.pad(rest, [(0, 0), (lags, 0), (0, 0)])


def _attend(bias: Params, q: Array, k: Array, v: Array, valid: Array | None, settings: Settings) -> Array:
    """f(q kᵀ + bias) v within every chunk, (n, L, E)."""
    n, length, _ = q.shape
    chunk = min(settings.chunk or length, length)
    short = -length % chunk
    if short and not settings.partial_chunks:
        raise InputError(f"Sequences of {length} steps cannot be cut into attention chunks of {chunk}; pad them.")
    if short and valid is None:
        valid = jnp.ones((n, length), bool)
    if short:
        q, k, v = (jnp.pad(part, [(0, 0), (0, short), (0, 0)]) for part in (q, k, v))
    q, k, v = (part.reshape(n, -1, chunk, part.shape[-1]) for part in (q, k, v))
    if valid is not None:
        valid = jnp.pad(valid, [(0, 0), (0, short)]).reshape(n, -1, 1, chunk)
    weights = _weights(q, k, valid, _position_bias(bias, chunk, settings.reach), settings.attention)
    h = jnp.einsum("ncij,ncje->ncie", weights, v, precision=_EXACT)
    return h.reshape(n, -1, v.shape[-1])[:, :length]


def _weights(q: Array, k: Array, valid: Array | None, bias: Array, function: str) -> Array:
    """(n, chunks, C, C). Softmax scales by 1/√z; the others divide by the number of valid keys of the chunk."""
    if function == "softmax":
        products = jnp.einsum("ncik,ncjk->ncij", q * q.shape[-1] ** -0.5, k, precision=_EXACT) + bias[None, None]
        if valid is not None:
            # Finite, so that a chunk of nothing but padding stays finite too.
            products = jnp.where(valid, products, jnp.finfo(products.dtype).min)
        return jax.nn.softmax(products, axis=-1)
    count = k.shape[2] if valid is None else jnp.maximum(valid.sum(axis=-1, keepdims=True), 1)
    products = jnp.einsum("ncik,ncjk->ncij", q, k, precision=_EXACT) / jnp.asarray(count, q.dtype) + bias[None, None]
    if function == "relu2":
        weights = jnp.square(jax.nn.relu(products))
    else:
        weights = 0.5 * (1 + lax.erf((products - _LAPLACE_MEAN) / (_LAPLACE_SPREAD * math.sqrt(2))))
    return weights if valid is None else jnp.where(valid, weights, 0)


def _position_bias(own: Params, length: int, reach: int | None) -> Array:
    """(L, L): entry [i, j] depends on j - i only; a learned table, or the product of two rotated vectors."""
    steps = jnp.arange(length)
    if reach is not None:
        if length > reach:
            raise UnsupportedModelError(
                f"The position bias reaches over {reach} steps, not {length}; cut the sequences or set chunk_size."
            )
        return own["rel_pos_bias"][reach - 1 + steps[None, :] - steps[:, None]]
    left, right = (_rotated(own[name][0], steps) for name in ("alpha", "beta"))
    return jnp.einsum("ik,jk->ij", left, right, precision=_EXACT)


def _rotated(vector: Array, steps: Array) -> Array:
    """(L, z): the vector turned by its step times 10000^(-k/half), entry k together with entry k + half."""
    half = vector.shape[0] // 2
    speed = jnp.exp(jnp.arange(half, dtype=vector.dtype) * (-math.log(10000) / half))
    angles = steps[:, None].astype(vector.dtype) * speed[None]
    sine, cosine, first, second = jnp.sin(angles), jnp.cos(angles), vector[None, :half], vector[None, half:]
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def _dense(own: Params, name: str, x: Array) -> Array:
    return linear(x, own[f"{name}.weight"], own.get(f"{name}.bias"))
