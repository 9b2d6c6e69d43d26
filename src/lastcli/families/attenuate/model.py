"""The published denoiser around aTENNuate's layers (arXiv 2409.03377), sequence to sequence; imports JAX.

A block is [depthwise convolution over three steps →] layer [→ layer norm over the channels] [→ SiLU]. On the way down a
linear map folds r steps into one after each block; on the way up another one unfolds them, what came in on the way down
is added, and a block follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lastcli.engine.simulate import simulate
from lastcli.errors import InputError
from lastcli.families.attenuate.names import Block, Denoiser, around
from lastcli.families.base import Forward, Tensors
from lastcli.families.parts.blocks import along, as_features, layer_norm
from lastcli.families.parts.leaves import canonical

__all__ = ["denoiser_forward"]

_EXACT = lax.Precision.HIGHEST

Params = Mapping[str, Any]


def denoiser_forward(tensors: Tensors, model: Denoiser) -> Forward:
    """The model as a pure function."""
    used = around(tensors, model)
    shapes = {path: tensors[name].shape for path, name in used.items()}
    folds = [int(shapes[f"{block.mixing}/weight"][2]) for block in model.down]
    layers = {canonical(name): tuple(info.shape) for name, info in tensors.items()}
    features = layers[f"{model.down[0].layer}/B"][1] if model.down else layers[f"{model.last[0].layer}/B"][1]

    def apply(params: Params, systems: Sequence[Any], x: Any, lengths: Any = None) -> tuple[Any, tuple[Any, ...]]:
        p = {path: params[name] for path, name in used.items()}
        x = as_features(jnp.asarray(x), features, systems[0].poles.real.dtype)
        whole = math.prod(folds)
        if x.shape[1] % whole:
            raise InputError(
                f"The sequences have {x.shape[1]} steps; this model folds {whole} into one, so pad them to a multiple."
            )
        inputs: list[Any] = []
        of_layer, skips = iter(systems), []
        for block in model.down:
            skips.append(x)
            x = _fold(p[f"{block.mixing}/weight"], _run(p, block, of_layer, inputs, x))
        for block in model.middle:
            x = _run(p, block, of_layer, inputs, x)
        for block, skip in zip(model.up, reversed(skips), strict=True):
            x = _run(p, block, of_layer, inputs, _unfold(p[f"{block.mixing}/weight"], x) + skip)
        for block in model.last:
            x = _run(p, block, of_layer, inputs, x)
        return x, tuple(inputs)

    outputs = layers[f"{model.last[-1].layer}/C"][0]
    return Forward(
        apply,
        features,
        outputs,
        task="regression",
        sequence=True,
        params=tuple(used.values()),
        input_step=math.prod(folds),
        unsteppable="it folds several steps into one and looks a step ahead",
    )


def _run(params: Params, block: Block, systems: Iterator[Any], inputs: list[Any], x: Any) -> Any:
    if block.convolution is not None:
        weight, bias = (params[f"{block.convolution}/{part}"] for part in ("weight", "bias"))
        padded = jnp.pad(x, [(0, 0), (1, 1), (0, 0)])
        steps = x.shape[1]
        x = sum(padded[:, k : k + steps] * along(weight[:, 0, k], 3) for k in range(3)) + along(bias, 3)
    inputs.append(x)
    x = simulate(next(systems), x)
    if block.norm is not None:
        x = layer_norm(x, params[f"{block.norm}/weight"], params[f"{block.norm}/bias"], 1e-5)
    return jax.nn.silu(x) if block.activated else x


def _fold(weight: Any, x: Any) -> Any:
    """(n, t·r, c) → (n, t, d) by a weight (c, d, r)."""
    apart = x.reshape(x.shape[0], -1, weight.shape[2], x.shape[2])
    return jnp.einsum("ntrc,cdr->ntd", apart, weight, precision=_EXACT)


def _unfold(weight: Any, x: Any) -> Any:
    """(n, t, c) → (n, t·r, d) by a weight (c, d, r)."""
    apart = jnp.einsum("ntc,cdr->ntrd", x, weight, precision=_EXACT)
    return apart.reshape(x.shape[0], -1, weight.shape[1])
