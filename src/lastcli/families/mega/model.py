"""The published models around Mega's moving average: what their tensors prove, and the forward pass.

- fairseq (the LRA and speech command classifiers): embedding of tokens or of real numbers [→ norm] → layers [→ norm]
  → mean over time (of two documents, side by side) → classifier layers with an activation → projection
- transformers: embedding (+ that of type 0) → layers → a head on the first step (sequence classification) or on every
  step (masked language model, token classification, question answering), or none

A layer is gated attention and mostly a feed-forward network; see `lastcli.families.mega.attention`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, Option, Tensors, task_option
from lastcli.families.mega.names import Published, published
from lastcli.families.parts.leaves import expect_shape

if TYPE_CHECKING:
    from lastcli.families.mega.attention import Settings, Steps

__all__ = ["MODEL_OPTIONS", "idle_options", "mega_forward", "proven", "settled_options"]

_ACTIVATIONS = ("silu", "relu", "gelu", "gelu_accurate", "linear")

MODEL_OPTIONS = (
    Option("shift", bool, False, "whether the backward half leaves the present step out (the later rewrite)"),
    Option(
        "norm",
        str,
        "scalenorm",
        "which norm, where it has no tensors of its own",
        ("layernorm", "scalenorm", "rmsnorm", "batchnorm"),
    ),
    Option("prenorm", bool, True, "whether the norm comes before the attention instead of after the skip"),
    Option("ffn_prenorm", bool, True, "the same for the feed-forward network"),
    Option("activation", str, "silu", "activation of values, outputs and feed-forward network", _ACTIVATIONS),
    Option(
        "attention",
        str,
        "auto",
        "attention function; auto: laplace for real-number inputs, else softmax, as the published runs had it",
        ("auto", "softmax", "relu2", "laplace"),
    ),
    Option(
        "chunk_size",
        int,
        0,
        "steps that attend to each other; -1: all; 0: as many as fairseq's learned position bias is for, else all",
    ),
    Option(
        "causal",
        str,
        "auto",
        "whether a step attends to the past only; auto: perhaps, with one direction and no head, else not",
        ("auto", "true", "false"),
    ),
    Option("truncation", int, -1, "lags of the moving average; 0: all; -1: 1024 in fairseq's classifiers, else all"),
    Option("padding_idx", int, 1, "the token that is padding in fairseq's classifiers; -1: none"),
    Option("pooling", str, "mean", "mean over time or the first step", ("mean", "first")),
    Option("classifier_activation", str, "gelu", "activation after fairseq's classifier layers", _ACTIVATIONS),
    task_option("classification"),
)

# The truncation of most LRA architectures in fairseq; Path-X has 4096, speech commands 1000.
_LRA_TRUNCATION = 1024


def proven(tensors: Tensors, layers: Sequence[str]) -> dict[str, Any]:
    """Option values that follow from which tensors there are; empty for a model that is not known."""
    model = published(tensors, layers)
    if model is None:
        return {}
    found: dict[str, Any] = {}
    if model.norm is not None:
        found["norm"] = model.norm
    if model.fairseq:
        found["prenorm"] = found["ffn_prenorm"] = any(role.startswith("final_norm.") for role in model.ends)
    elif model.head == "first":
        found["pooling"] = "first"
    if model.head == "hidden" or model.outputs(tensors) == 1:
        found["task"] = "regression"
    return found


def settled_options(tensors: Tensors, layers: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """What "auto" stands for in the model around these layers, as `Family.settled`."""
    model = published(tensors, layers)
    return {} if model is None else {"attention": ("laplace" if model.numbers else "softmax", "assumed")}


def idle_options(tensors: Tensors, layers: Sequence[str]) -> frozenset[str]:
    """Options that say nothing about the model around these layers; all of them where it is not known."""
    model = published(tensors, layers)
    if model is None:
        return frozenset(option.key for option in MODEL_OPTIONS)
    idle = set() if model.fairseq else {"padding_idx", "classifier_activation"}
    if model.numbers:
        idle.add("padding_idx")
    if "classifier.0.weight" not in model.ends:
        idle.add("classifier_activation")
    if model.head != "pooled":
        idle.add("pooling")
    if "nffn.fc1.weight" not in model.blocks[0]:
        idle.add("ffn_prenorm")
    return frozenset(idle)


def mega_forward(tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
    """The published model as a pure function, or None where the names are those of another model.

    Raises:
        UnsupportedModelError: shapes contradict each other, or the description contradicts them.
    """
    model = published(tensors, [layer.name for layer in layers])
    if model is None:
        return None
    model.check(tensors)
    width = model.width(tensors)
    for layer in layers:
        expect_shape(tensors[layer.tensors["gamma"]], (width, layer.states), (2 * width, layer.states))
    if config["causal"] == "true":
        return None
    if model.head == "hidden" and layers[0].sets == width and config["causal"] == "auto":
        # One direction and no head: as likely the causal model, whose attention has a mask.
        return None
    settings = _settings(model, tensors, config)
    names = dict(model.ends)
    names |= {f"{i}.{role}": name for i, block in enumerate(model.blocks) for role, name in block.items()}

    def apply(
        params: Mapping[str, Any], systems: Sequence[Any], x: Any, lengths: Any = None
    ) -> tuple[Any, tuple[Any, ...]]:
        import jax.numpy as jnp

        p = {role: jnp.asarray(params[name]) for role, name in names.items()}
        # Half precision is for storage: the model computes in float32.
        p = {role: value.astype(np.promote_types(value.dtype, np.float32)) for role, value in p.items()}
        return _run(model, p, config, settings, systems, jnp.asarray(x), lengths)

    return Forward(
        apply=apply,
        features=1 if model.numbers else tensors[model.ends["embed.weight"]].shape[0],
        outputs=model.outputs(tensors),
        task=config["task"],
        sequence=model.head in ("steps", "hidden"),
        params=tuple(names.values()),
        layout="pair" if model.pair else "single",
        unsteppable="its attention looks at all steps of a chunk",
    )


def _settings(model: Published, tensors: Tensors, config: Config) -> dict[str, Any]:
    """The fields of `mega_attention.Settings`.

    Raises:
        UnsupportedModelError: the description contradicts the tensors.
    """
    if config["norm"] == "batchnorm" and model.norm is None:
        raise UnsupportedModelError("norm is batchnorm, but the checkpoint has no running means; correct the norm.")
    size, reach = int(config["chunk_size"]), model.reach(tensors)
    if reach is not None and size > 0 and (size != reach if model.fairseq else size > reach):
        raise UnsupportedModelError(
            f"chunk_size is {size}, but the checkpoint's position bias is for {reach} steps; correct the chunk_size."
        )
    if size == 0 and model.fairseq and reach is not None:
        size = reach
    truncation = int(config["truncation"])
    if truncation < 0 and model.fairseq:
        truncation = _LRA_TRUNCATION
    attention = config["attention"]
    if attention == "auto":
        attention = "laplace" if model.numbers else "softmax"
    return {
        # The norm of this name in transformers computes the mean square and does not use it.
        "norm": "scale" if config["norm"] == "rmsnorm" and not model.fairseq else config["norm"],
        "prenorm": config["prenorm"],
        "ffn_prenorm": config["ffn_prenorm"],
        "activation": config["activation"],
        "attention": attention,
        "chunk": size if size > 0 else None,
        "partial_chunks": not model.numbers,
        # transformers centres the table by the size of a chunk, whatever its length.
        "reach": size if size > 0 and reach is not None else reach,
        "truncation": truncation if truncation > 0 else None,
        "skip_present": config["shift"],
    }


def _run(
    model: Published,
    p: Mapping[str, Any],
    config: Config,
    settings: Mapping[str, Any],
    systems: Sequence[Any],
    x: Any,
    lengths: Any,
) -> tuple[Any, tuple[Any, ...]]:
    """Outputs and layer inputs; `p` are the tensors by role, those of layer i below `{i}.`."""
    import jax.numpy as jnp

    from lastcli.families.mega import attention as nn

    made = nn.Settings(**settings)
    if model.pair:
        x = jnp.concatenate([x[:, 0], x[:, 1]])
        lengths = None if lengths is None else lengths.T.reshape(-1)
    steps = _steps(model, config["padding_idx"], x, lengths)
    h = _embed(model, p, x)
    if any(role.startswith("embed_norm.") for role in p):
        h = nn.norm(made.norm, nn.below(p, "embed_norm.norm."), h)
    h, inputs = steps.only(h), []
    for i, system in enumerate(systems):
        own = nn.below(p, f"{i}.")
        h, u = nn.gated_attention(nn.below(own, "mega_layer."), system, h, steps, made)
        inputs.append(u)
        if "nffn.fc1.weight" in own:
            h = nn.feed_forward(nn.below(own, "nffn."), h, made)
    return _head(model, p, config, made, h, steps), tuple(inputs)


def _steps(model: Published, padding: int, x: Any, lengths: Any) -> Steps:
    """fairseq finds the padding by its token, transformers is told; both are told by `lengths` here."""
    import jax.numpy as jnp

    from lastcli.families.mega.attention import Steps

    position = jnp.arange(x.shape[1])[None]
    valid = None if lengths is None else position < lengths[:, None]
    if model.fairseq and not model.numbers and x.ndim == 2 and padding >= 0:
        real = x != padding
        valid = real if valid is None else valid & real
        lengths = jnp.where(real, position + 1, 0).max(axis=1) if lengths is None else lengths
    return Steps(valid, lengths)


def _embed(model: Published, p: Mapping[str, Any], x: Any) -> Any:
    import jax.numpy as jnp

    from lastcli.families.parts.blocks import along, linear

    weight = p["embed.weight"]
    if model.numbers:
        x = x if x.ndim == 3 else x[..., None]
        return x.astype(weight.dtype) * along(weight, 3) + along(p["embed.bias"], 3)
    h = weight[x.astype(jnp.int32)] if x.ndim == 2 else linear(x.astype(weight.dtype), weight.T)
    return h + along(p["types.weight"][0], h.ndim) if "types.weight" in p else h


def _head(model: Published, p: Mapping[str, Any], config: Config, made: Settings, h: Any, steps: Steps) -> Any:
    import jax.numpy as jnp

    from lastcli.families.mega import attention as nn
    from lastcli.families.parts.blocks import linear

    def dense(h: Any, name: str) -> Any:
        return linear(h, p[f"{name}.weight"], p.get(f"{name}.bias"))

    if model.head == "hidden":
        return h
    if any(role.startswith("final_norm.") for role in p):
        h = nn.norm(made.norm, nn.below(p, "final_norm.norm."), h)
    act = nn.ACTIVATIONS[config["classifier_activation"]] if model.fairseq else jnp.tanh
    if model.head == "pooled" and config["pooling"] == "mean":
        count = h.shape[1] if steps.lengths is None else jnp.maximum(steps.lengths, 1)[:, None].astype(h.dtype)
        h = steps.only(h).sum(axis=1) / count
    elif model.head != "steps":
        h = h[:, 0]
    if model.pair:
        first, second = jnp.split(h, 2)
        # The published code puts the second document first.
        h = jnp.concatenate([second, first], axis=-1)
    for j in range(sum(role.startswith("classifier.") and role.endswith(".weight") for role in p)):
        h = act(dense(h, f"classifier.{j}"))
    return dense(h, "projection")
