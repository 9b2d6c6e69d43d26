"""The published Event-SSM classifier over named parameters (JAX); import it only where it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lastcli.engine.simulate import simulate
from lastcli.engine.system import DiagonalSystem
from lastcli.errors import InputError
from lastcli.families.parts.blocks import activation, along, layer_norm, pool

__all__ = ["classify", "decoded", "encoded", "irregular"]

Array = Any
Config = Mapping[str, Any]

_EXACT = lax.Precision.HIGHEST
# Keeps weighted means finite where events share a time.
_EPS = 1e-6


def classify(
    params: Mapping[str, Array],
    places: Sequence[tuple[int, int]],
    nominal: Sequence[float],
    config: Config,
    systems: Sequence[DiagonalSystem],
    x: Array,
    lengths: Array | None,
) -> tuple[Array, tuple[Array, ...]]:
    """Logits and layer inputs.

    Args:
        params: by path from `encoder`, `decoder` or `batch_stats` on.
        places: (stage, position) of each layer.
        nominal: the time between two inputs that each layer's system was made for.
        config: the model description.
        systems: one a layer.
        x: (n, L) tokens, or (n, L, 2) tokens and times since the last event with the option `timesteps`; without it
            (n, L, tokens) weights of the tokens as well, such as one-hot ones.
        lengths: (n,) events of each example, or None.
    """
    h, times, inputs = encoded(params, places, nominal, config, systems, x)
    stages = 1 + max(stage for stage, _ in places)
    head = _head(h, times, lengths, int(config["pooling_stride"]) ** stages, config["mode"])
    return _dense(_wide(params), "decoder", head), inputs


def decoded(params: Mapping[str, Array], config: Config, h: Array) -> Array:
    """Logits for features (n, L, H) of events that are equally far apart."""
    return _dense(_wide(params), "decoder", pool(h, config["mode"], None))


def encoded(
    params: Mapping[str, Array],
    places: Sequence[tuple[int, int]],
    nominal: Sequence[float],
    config: Config,
    systems: Sequence[Any],
    x: Array,
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Features (n, L, H), the time each of them stands for (n, L), and layer inputs; arguments as of `classify`."""
    params = _wide(params)
    table = params["encoder/encoder/embedding"]
    tokens, times = (x[..., 0], x[..., 1]) if config["timesteps"] else (x, jnp.full(x.shape[:2], config["timestep"]))
    if tokens.ndim == 3:
        h = jnp.einsum("nlt,tf->nlf", tokens, table, precision=_EXACT)
    else:
        h = jnp.take(table, tokens.astype(jnp.int32), axis=0)
    times = times.astype(h.dtype)
    inputs = []
    for place, time, system in zip(places, nominal, systems, strict=True):
        own = _below(params, "encoder/stages_{}/SequenceLayer_{}".format(*place))
        stride = int(config["pooling_stride"]) if place[1] == 0 else 1
        u = _norm(own, h) if config["prenorm"] else h
        inputs.append(u)
        y = _response(system, u, times / time if config["timesteps"] else None, config["discretization"])
        kept = u.shape[1] // stride * stride
        if kept == 0:
            raise InputError(
                f"The sequences are too short: layer {len(inputs)} pools {stride} events into one and gets "
                f"{u.shape[1]}; pad them."
            )
        y = y[:, :kept:stride]
        if system.D is not None:
            y = y + jnp.einsum("nlm,pm->nlp", _merge_steps(u, times, stride, config), system.D[0], precision=_EXACT)
        y = y * jax.nn.sigmoid(_dense(own, "Dense_0", activation("gelu_tanh", y)))
        skip = _merge_steps(h, times, stride, config)
        times = times[:, :kept].reshape(times.shape[0], -1, stride).sum(axis=2)
        h = (_dense(own, "Dense_1", skip) if "Dense_1/kernel" in own else skip) + y
        h = h if config["prenorm"] else _norm(own, h)
    return h, times, tuple(inputs)


def _wide(params: Mapping[str, Array]) -> dict[str, Array]:
    return {path: jnp.asarray(value, np.promote_types(value.dtype, np.float32)) for path, value in params.items()}


def irregular(system: DiagonalSystem, u: Array, ratio: Array, rule: str) -> Array:
    """The layer's output without D when the time before input k is `ratio[k]` times the one its system was made for.

    A pole over r times the time is λ^r; the input gain of "zoh" grows by (λ^r - 1)/(λ - 1), those of "dirac" and
    "async" do not depend on the time.

    Args:
        system: MIMO, one direction; poles with angles below half a turn.
        u: (n, L, m).
        ratio: (n, L) non-negative.
        rule: the discretisation.
    """
    poles = system.poles[0][None, None]
    ratio = ratio.astype(poles.dtype)
    gone = poles == 0
    safe = jnp.where(gone, 1, poles)
    steps = jnp.where(gone, 0, jnp.exp(jnp.log(safe) * ratio[..., None]))
    drive = jnp.einsum("nlm,jm->nlj", u.astype(poles.dtype), system.B[0], precision=_EXACT)
    if rule == "zoh":
        still = poles == 1
        drive = drive * jnp.where(still, ratio[..., None], (steps - 1) / jnp.where(still, 1, poles - 1))

    def step(state: Array, this: tuple[Array, Array]) -> tuple[Array, Array]:
        state = this[0] * state + this[1]
        return state, state

    by_time = (jnp.swapaxes(steps, 0, 1), jnp.swapaxes(drive, 0, 1))
    states = jnp.swapaxes(lax.scan(step, jnp.zeros_like(drive[:, 0]), by_time)[1], 0, 1)
    return system.pairing * jnp.einsum("nlj,pj->nlp", states, system.C[0, 0], precision=_EXACT).real


def _response(system: DiagonalSystem, u: Array, ratio: Array | None, rule: str) -> Array:
    """C x, without D: D acts on the pooled input."""
    return simulate(system.replace(D=None), u) if ratio is None else irregular(system, u, ratio, rule)


def _merge_steps(x: Array, times: Array, stride: int, config: Config) -> Array:
    """`stride` steps into one. The mode called "last" takes the first of them, as the published code does."""
    if stride == 1:
        return x
    kept = x.shape[1] // stride * stride
    x = x[:, :kept].reshape(x.shape[0], -1, stride, x.shape[2])
    if config["pooling_mode"] == "last":
        return x[:, :, 0]
    if config["pooling_mode"] == "avgpool":
        return x.mean(axis=2)
    weight = times[:, :kept].reshape(x.shape[0], -1, stride, 1) + _EPS
    return (x * weight).sum(axis=2) / weight.sum(axis=2)


def _head(h: Array, times: Array, lengths: Array | None, pooled: int, mode: str) -> Array:
    if mode == "last":
        return h[:, -1]
    count = jnp.full(h.shape[0], h.shape[1]) if lengths is None else jnp.maximum(lengths // pooled, 1)
    if mode == "pool":
        return pool(h, "pool", count)
    inside = (jnp.arange(h.shape[1])[None] < count[:, None])[..., None]
    weighted = jnp.where(inside, h * (times[..., None] + _EPS), 0)
    return weighted.sum(axis=1) / times.sum(axis=1)[:, None]


def _norm(own: Mapping[str, Array], x: Array) -> Array:
    if "LayerNorm_0/scale" in own:
        return layer_norm(x, own["LayerNorm_0/scale"], own["LayerNorm_0/bias"], 1e-6)
    mean, variance, scale, bias = (
        along(own[f"BatchNorm_0/{part}"], x.ndim) for part in ("mean", "var", "scale", "bias")
    )
    return (x - mean) * lax.rsqrt(variance + 1e-5) * scale + bias


def _dense(params: Mapping[str, Array], path: str, x: Array) -> Array:
    y = jnp.einsum("...i,io->...o", x, params[f"{path}/kernel"], precision=_EXACT)
    return y + along(params[f"{path}/bias"], y.ndim)


def _below(params: Mapping[str, Array], path: str) -> dict[str, Array]:
    """Parameters and statistics of one layer, by the rest of their path."""
    return {
        name.removeprefix("batch_stats/").removeprefix(f"{path}/"): value
        for name, value in params.items()
        if f"{path}/" in name
    }
