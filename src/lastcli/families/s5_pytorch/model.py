"""The published transformer-style blocks around s5-pytorch layers; JAX is imported where they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lastcli.families.base import Forward, Layer, Tensors
from lastcli.families.parts.stepping import step_by_step

__all__ = ["sequence_model"]


def sequence_model(tensors: Tensors, layers: Sequence[Layer], blocks: Sequence[Mapping[str, str]]) -> Forward:
    """The layers one after the other, each in its block ({role: tensor name}, or nothing around it)."""
    width = tensors[layers[0].tensors["D"]].shape[0]

    def apply(params: Mapping[str, Any], systems: Sequence[Any], x: Any, lengths: Any) -> tuple[Any, tuple[Any, ...]]:
        from lastcli.engine.simulate import simulate
        from lastcli.families.parts.blocks import as_features

        x = as_features(x, width, systems[0].poles.real.dtype)
        inputs = []
        for system, block in zip(systems, blocks, strict=True):
            own = {role: params[name] for role, name in block.items()}
            u = _normalise(own, "attn_norm", x) if block else x
            inputs.append(u)
            y = simulate(system, u)
            x = _feed_forward(own, u, y) if block else y
        return x, tuple(inputs)

    return Forward(
        apply=apply,
        features=width,
        outputs=width,
        task="regression",
        sequence=True,
        params=tuple(name for block in blocks for name in block.values()),
        **step_by_step(
            lambda params, systems, x: apply(params, systems, x, None),
            lambda params, h: h,
            over="last",
            sequence=True,
            width=width,
        ),
    )


def _normalise(own: Mapping[str, Any], norm: str, x: Any) -> Any:
    from lastcli.families.parts.blocks import layer_norm

    return layer_norm(x, own[f"{norm}.weight"], own[f"{norm}.bias"], 1e-5)


def _feed_forward(own: Mapping[str, Any], u: Any, y: Any) -> Any:
    """The rest of the block. Both skip connections start after a norm, as in the published code."""
    import jax.numpy as jnp

    from lastcli.families.parts.blocks import activation, linear

    z = _normalise(own, "ff_norm", activation("gelu", y) + u)
    h = linear(z, own["ff_enc.weight"])
    if h.shape[-1] == 2 * own["ff_dec.weight"].shape[1]:
        value, gate = jnp.split(h, 2, axis=-1)
        h = value * activation("gelu", gate)
    return linear(h, own["ff_dec.weight"]) + z
