"""The model of the S4 repository's `example.py`, which most published S4D and S4 files were trained in.

    encoder Linear → per block [layer → activation → linear map, mostly to 2H and gated] + skip, with LayerNorm after it
    (before the layer with `prenorm`) → mean over time → decoder Linear

Names: `encoder`, `s4_layers.{i}` with `output_linear` inside, `norms.{i}`, `decoder`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, Option, Tensors, next_token, task_option
from lastcli.families.parts.stepping import step_by_step

__all__ = ["EXAMPLE_OPTIONS", "Block", "example_blocks", "example_forward"]

EXAMPLE_OPTIONS = (
    Option("prenorm", bool, False, "whether the norm comes before the layer instead of after the skip"),
    Option(
        "activation",
        str,
        "gelu",
        "activation between the layer and the output map",
        ("gelu", "gelu_tanh", "glu", "relu", "silu", "tanh", "none"),
    ),
    Option("eps", float, 1e-5, "epsilon of the layer norm"),
    Option("mode", str, "pool", "mean over time, last step, or one output a step", ("pool", "last", "sequence")),
    task_option("classification"),
)


@dataclass(frozen=True)
class Block:
    """Names of one block's tensors around its state space layer."""

    weight: str
    bias: str | None
    scale: str
    shift: str | None


def example_blocks(tensors: Tensors, layers: Sequence[str]) -> tuple[str, tuple[Block, ...]] | None:
    """The common prefix and the blocks of the layers with these names, or None where the model is another."""
    found = []
    prefixes = set()
    for layer in layers:
        match = re.fullmatch(r"(?P<prefix>(?:.*\.)?)(?P<stack>\w+)\.(?P<index>\d+)(?:\.layer)?", layer)
        if match is None:
            return None
        prefix, index = match["prefix"], match["index"]
        output = f"{prefix}{match['stack']}.{index}.output_linear"
        weight = next((n for n in (f"{output}.0.weight", f"{output}.weight") if n in tensors), None)
        scale = f"{prefix}norms.{index}.weight"
        if weight is None or scale not in tensors:
            return None
        bias, shift = weight.removesuffix("weight") + "bias", scale.removesuffix("weight") + "bias"
        found.append(Block(weight, bias if bias in tensors else None, scale, shift if shift in tensors else None))
        prefixes.add(prefix)
    if len(prefixes) != 1:
        return None
    prefix = prefixes.pop()
    if any(len(tensors[n].shape) != 2 for n in (f"{prefix}encoder.weight", f"{prefix}decoder.weight") if n in tensors):
        return None
    if f"{prefix}encoder.weight" not in tensors or f"{prefix}decoder.weight" not in tensors:
        return None
    return prefix, tuple(found)


def example_forward(tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
    """The example model as a pure function, or None where the names are those of another model.

    Raises:
        UnsupportedModelError: the description asks for a pooling that the example model does not have.
    """
    names = example_blocks(tensors, [layer.name for layer in layers])
    if names is None:
        return None
    if config["mode"] not in ("pool", "last", "sequence"):
        raise UnsupportedModelError(
            f"mode is {config['mode']}, but the example model of the S4 repository has pool, last and sequence only; "
            "correct the model description."
        )
    prefix, blocks = names
    ends = [f"{prefix}{end}.{leaf}" for end in ("encoder", "decoder") for leaf in ("weight", "bias")]
    params = [name for name in ends if name in tensors]
    for block in blocks:
        params += [name for name in (block.weight, block.bias, block.scale, block.shift) if name]
    features = tensors[f"{prefix}encoder.weight"].shape[1]

    def dense(params: dict[str, Any], h: Any, name: str) -> Any:
        from lastcli.families.parts.blocks import linear

        return linear(h, params[f"{prefix}{name}.weight"], params.get(f"{prefix}{name}.bias"))

    def features_of(params: dict[str, Any], systems: Sequence[Any], x: Any) -> tuple[Any, tuple[Any, ...]]:
        from lastcli.engine.simulate import simulate
        from lastcli.families.parts import blocks as nn

        h = dense(params, nn.as_features(x, features, params[f"{prefix}encoder.weight"].dtype), "encoder")
        inputs = []
        for block, system in zip(blocks, systems, strict=True):
            scale, shift = params[block.scale], params[block.shift] if block.shift else None
            u = nn.layer_norm(h, scale, shift, config["eps"]) if config["prenorm"] else h
            inputs.append(u)
            y = nn.activation(config["activation"], simulate(system, u).astype(h.dtype))
            y = nn.linear(y, params[block.weight], params[block.bias] if block.bias else None)
            # Without a gate the map ends at H, with one at 2H.
            h = h + (nn.glu(y) if y.shape[-1] == 2 * h.shape[-1] else y)
            if not config["prenorm"]:
                h = nn.layer_norm(h, scale, shift, config["eps"])
        return h, tuple(inputs)

    def head(params: dict[str, Any], h: Any, lengths: Any = None) -> Any:
        from lastcli.families.parts.blocks import pool

        return dense(params, pool(h, config["mode"], lengths), "decoder")

    def apply(
        params: dict[str, Any], systems: Sequence[Any], x: Any, lengths: Any = None
    ) -> tuple[Any, tuple[Any, ...]]:
        h, inputs = features_of(params, systems, x)
        return head(params, h, lengths), inputs

    return Forward(
        apply=apply,
        features=features,
        outputs=tensors[f"{prefix}decoder.weight"].shape[0],
        task=config["task"],
        sequence=config["mode"] == "sequence",
        generates=next_token(config),
        params=tuple(params),
        **step_by_step(
            features_of,
            head,
            over="mean" if config["mode"] == "pool" else "last",
            sequence=config["mode"] == "sequence",
            width=tensors[f"{prefix}decoder.weight"].shape[1],
        ),
    )
