"""Forward pass of the model that the S4 repository's training code puts around S4 and DSS layers.

Imports JAX, so it is itself imported lazily. The names are in `s4_sequence_names`. A block, with f the layer's own
activation and g the one after its output map::

    y = g(W f(SSM(norm(x))) + b)         x ← x + y          (norm(x + y) without `prenorm`)

V3 has a gated form, y = W₂ (g(W f(SSM(f(W₀ x)))) · f(W₁ x)). Everything is as at evaluation: no dropout, and batch
norms by their stored statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from lastcli.engine.simulate import simulate
from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, Tensors, next_token
from lastcli.families.parts import blocks as nn
from lastcli.families.parts.stepping import step_by_step
from lastcli.families.s4.models.sequence_names import (
    Block,
    Linear,
    Norm,
    SequenceNames,
    find_sequence_model,
    gated_output,
)
from lastcli.families.s4.models.settled import NORM_KINDS

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem

__all__ = ["sequence_forward"]

Array = Any
Params = Mapping[str, Any]


def sequence_forward(tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
    """The model as a pure function, or None where the names are those of another model.

    Raises:
        UnsupportedModelError: the description contradicts the tensors, or asks for what the published code lacks.
    """
    model = find_sequence_model(tensors, [layer.name for layer in layers])
    if model is None:
        return None
    _check(model, config)
    encoder, head = model.ends.encoder, model.ends.head

    def apply(
        params: Params, systems: Sequence[DiagonalSystem], x: Array, lengths: Array | None = None
    ) -> tuple[Array, tuple[Array, ...]]:
        if model.ends.retrieval:
            # All first documents, then all second ones, as the published loader stacks them.
            x = jnp.concatenate([x[:, 0], x[:, 1]])
            lengths = None if lengths is None else jnp.concatenate([lengths[:, 0], lengths[:, 1]])
        h, inputs = _blocks(model, config, params, systems, _encode(model, params, x), lengths)
        h = _restrict(h, config, lengths if config["use_lengths"] else None)
        y = _decode(model, config, params, h)
        return (y if config["mode"] == "sequence" else y.reshape(len(y), -1)), inputs

    def features(params: Params, systems: Sequence[Any], x: Array) -> tuple[Array, tuple[Array, ...]]:
        return _blocks(model, config, params, systems, _encode(model, params, x), None)

    def outputs(params: Params, h: Array) -> Array:
        # what "mean" and "sum" make of the steps is there already, as one step
        return _decode(model, config, params, h if config["mode"] == "sequence" else h[:, 0])

    why = _unsteppable(model, config)
    stepped: dict[str, Any] = {"unsteppable": why}
    if not why:
        over = {"pool": "mean", "sum": "sum"}.get(config["mode"], "last")
        stepped = step_by_step(features, outputs, over=over, sequence=config["mode"] == "sequence", width=model.width)
    return Forward(
        apply=apply,
        features=model.width if encoder is None else encoder.shape[0 if model.ends.embeds else 1],
        outputs=head[-1].shape[0] * max(config["l_output"], 1),
        task=config["task"],
        sequence=config["mode"] == "sequence",
        generates=next_token(config),
        params=model.params,
        layout="pair" if model.ends.retrieval else "single",
        **stepped,
    )


def _unsteppable(model: SequenceNames, config: Config) -> str:
    """Why the model is not run step by step, as a clause; empty where it is."""
    if model.ends.retrieval:
        return "its head compares two whole sequences"
    if config["mode"] == "first" or config["l_output"] > 1:
        return "its head reads other steps than the present one"
    norms = (
        [model.final, *(block.norm for block in model.blocks)]
        if config["prenorm"]
        else [block.norm for block in model.blocks]
    )
    if any(_kind(norm, config) in ("group", "instance") for norm in norms):
        return "its norms look at all steps"
    return ""


def _check(model: SequenceNames, config: Config) -> None:
    """The description against the tensors."""
    if config["norm"] not in ("auto", *NORM_KINDS[model.stored_norm]):
        raise UnsupportedModelError(
            f"norm is {config['norm']}, but the norms of the model hold "
            f"{', '.join(model.blocks[0].norm.roles) or 'no tensors'}; correct the model description."
        )
    if model.stored_norm != "bare" and config["prenorm"] == (model.final.stored == "bare"):
        raise UnsupportedModelError(
            f"prenorm is {str(config['prenorm']).lower()}, but a norm after the last block is "
            f"{'missing' if config['prenorm'] else 'there'}; correct the model description."
        )
    if (config["residual"] == "A") != (model.blocks[0].affine is not None):
        raise UnsupportedModelError(
            f"residual is {config['residual']}, but the blocks {'hold' if model.blocks[0].affine else 'lack'} a "
            "residual.affine, which belongs to residual=A; correct the model description."
        )
    if config["l_output"] > 1 and (config["mode"] in ("pool", "sequence") or config["task"] != "regression"):
        raise UnsupportedModelError(
            f"l_output={config['l_output']} is for a regression with mode last, first or sum; the published mean over "
            "time has one output, and mode=sequence has one at every step."
        )
    if model.ends.retrieval and (config["mode"] == "sequence" or config["l_output"] > 1):
        raise UnsupportedModelError(
            "The head for pairs compares one feature of each document; it has neither mode=sequence nor an l_output."
        )
    for block in model.blocks:
        if block.output and block.hidden is None:
            _postact(block, model, config)


def _encode(model: SequenceNames, params: Params, x: Array) -> Array:
    """(n, L, width) from features, or from tokens (n, L) by the embedding."""
    encoder = model.ends.encoder
    if encoder is None:
        return nn.as_features(x, model.width, jnp.float32)
    table = params[encoder.weight]
    if model.ends.embeds:
        if x.ndim == 3 and x.shape[-1] == encoder.shape[0] > 1:
            return nn.linear(x.astype(table.dtype), table.T)
        return table[(x[..., 0] if x.ndim == 3 else x).astype(jnp.int32)]
    return _linear(params, encoder, nn.as_features(x, encoder.shape[1], table.dtype))


def _blocks(
    model: SequenceNames,
    config: Config,
    params: Params,
    systems: Sequence[DiagonalSystem],
    h: Array,
    lengths: Array | None,
) -> tuple[Array, tuple[Array, ...]]:
    """The features after the last norm, and the input of every state space layer."""
    inputs: list[Array] = []
    for number, block in enumerate(model.blocks, start=1):
        y = _normalise(params, block.norm, config, h) if config["prenorm"] else h
        if block.hidden is not None and block.output is not None:
            y = _feed_forward(params, block.hidden, block.output, config, y)
        else:
            padding = lengths if config["mask_padding"] else None
            y, u = _layer(params, block, model, config, systems[len(inputs)], y, padding)
            inputs.append(u)
        h = _skip(params, block, config["residual"], number, h, y)
        h = h if config["prenorm"] else _normalise(params, block.norm, config, h)
    return _normalise(params, model.final, config, h) if config["prenorm"] else h, tuple(inputs)


def _layer(
    params: Params,
    block: Block,
    model: SequenceNames,
    config: Config,
    system: DiagonalSystem,
    u: Array,
    lengths: Array | None,
) -> tuple[Array, Array]:
    """A state space layer with what surrounds it, and what the layer itself gets."""
    if lengths is not None:
        u = u * (jnp.arange(u.shape[1])[None] < lengths[:, None])[..., None].astype(u.dtype)
    own = config["activation"]
    gate = _activation(own, _linear(params, block.gate[0], u)) if block.gate else None
    if block.bottleneck:
        u = _activation(own, _linear(params, block.bottleneck, u))
    if u.shape[-1] != system.groups:
        raise UnsupportedModelError(
            f"A layer has {system.groups} channels, but {u.shape[-1]} features reach it; its model is not the one of "
            "the S4 repository, give a --forward."
        )
    y = _activation(own, simulate(system, u).astype(u.dtype))
    if block.output is not None:
        if block.output.shape[1] != y.shape[-1]:
            raise UnsupportedModelError(
                f"{block.output.weight} takes {block.output.shape[1]} features, but the layer gives {y.shape[-1]} with "
                f"activation={own}; a gated layer needs activation=glu, one with a hyper_act a --forward."
            )
        y = _activation(_postact(block, model, config), _linear(params, block.output, y))
    elif y.shape[-1] != model.width:
        raise UnsupportedModelError(
            f"A layer gives {y.shape[-1]} features to a model of {model.width} without an output map between them; its "
            "model is not the one of the S4 repository, give a --forward."
        )
    return (y if gate is None or block.gate is None else _linear(params, block.gate[1], y * gate)), u


def _postact(block: Block, model: SequenceNames, config: Config) -> str:
    """The activation after the output map: a gate where the map has two halves, else what the description says."""
    said, gated = config["postact"], gated_output(block, model)
    assumed = "glu" if gated else "none"
    if block.output is not None and said == "auto" and block.output.activated and not gated:
        raise UnsupportedModelError(
            f"{block.output.weight} is followed by an activation that its shape does not tell; give it with --set "
            "postact=NAME (none where final_act is id)."
        )
    if said != "auto" and said.startswith("glu") != gated:
        raise UnsupportedModelError(
            f"postact is {said}, but the shape of {block.output.weight if block.output else 'the output map'} "
            f"{'is' if gated else 'is not'} that of a gated map; correct the model description."
        )
    return assumed if said == "auto" else said


def _feed_forward(params: Params, hidden: Linear, output: Linear, config: Config, x: Array) -> Array:
    said, gated = config["ff_activation"], hidden.shape[0] == 2 * output.shape[1]
    if said.startswith("glu") and not gated:
        raise UnsupportedModelError(
            f"ff_activation is {said}, but the shape of {hidden.weight} is not that of a gated map; correct the model "
            "description."
        )
    kind = "none" if not hidden.activated else "glu" if gated and not said.startswith("glu") else said
    return _linear(params, output, _activation(kind, _linear(params, hidden, x)))


def _skip(params: Params, block: Block, kind: str, number: int, x: Array, y: Array) -> Array:
    """Residual connection of block `number`, from 1."""
    if kind == "F":
        return y
    if kind == "D":
        branch = number**-0.5
        return (1 - branch**2) ** 0.5 * x + branch * y
    return x + (nn.along(params[block.affine], y.ndim) * y if block.affine else y)


def _linear(params: Params, part: Linear, x: Array) -> Array:
    weight = params[part.weight].reshape(part.shape)
    if part.gain is not None:
        length = jnp.sqrt(jnp.square(weight).sum(axis=1, keepdims=True))
        weight = weight * (params[part.gain].reshape(-1, 1) / length)
    return nn.linear(x, weight, params[part.bias] if part.bias else None)


def _activation(name: str, x: Array) -> Array:
    """As in `blocks`, and gates with another function than the sigmoid ("glu-gelu")."""
    if name.startswith("glu-"):
        value, gate = jnp.split(x, 2, axis=-1)
        return value * nn.activation(name.removeprefix("glu-"), gate)
    return nn.activation(name, x)


def _kind(norm: Norm, config: Config) -> str:
    return str(NORM_KINDS[norm.stored][0] if config["norm"] == "auto" else config["norm"])


def _normalise(params: Params, norm: Norm, config: Config, x: Array) -> Array:
    """A norm of (n, L, H): over features, over steps, over both, or by stored statistics."""
    kind = _kind(norm, config)
    if kind == "none":
        return x
    if norm.stored == "scalar":
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True))
        scale, shift = (nn.along(params[norm.roles[role]], x.ndim) for role in ("s", "m"))
        return scale / deviation * (centred + shift)
    if kind == "batch":
        mean, variance = (nn.along(params[norm.roles[f"running_{role}"]], x.ndim) for role in ("mean", "var"))
    else:
        axes = {"layer": (-1,), "group": (1, 2), "instance": (1,)}[kind]
        mean = x.mean(axis=axes, keepdims=True)
        variance = jnp.square(x - mean).mean(axis=axes, keepdims=True)
    y = (x - mean) * lax.rsqrt(variance + config["eps"])
    y = y * nn.along(params[norm.roles["weight"]], x.ndim) if "weight" in norm.roles else y
    return y + nn.along(params[norm.roles["bias"]], x.ndim) if "bias" in norm.roles else y


def _restrict(h: Array, config: Config, lengths: Array | None) -> Array:
    """The features that the decoder reads: (n, width); (n, l_output, width) for several steps; all (n, L, width)."""
    mode, count = config["mode"], max(config["l_output"], 1)
    if mode in ("pool", "sequence"):
        return nn.pool(h, mode, lengths)
    if mode == "first":
        steps = h[:, :count]
    else:
        h = jnp.cumsum(h, axis=1) if mode == "sum" else h
        ends = jnp.full(len(h), h.shape[1]) if lengths is None else lengths
        at = jnp.maximum(ends[:, None] - count + jnp.arange(count)[None], 0)
        steps = jnp.take_along_axis(h, at[..., None], axis=1)
    return steps[:, 0] if count == 1 else steps


def _decode(model: SequenceNames, config: Config, params: Params, h: Array) -> Array:
    head = model.ends.head
    if not model.ends.retrieval:
        return _linear(params, head[0], h)
    first, second = jnp.split(h, 2)
    parts = (first, second) if len(head) == 3 else (first, second, first - second, first * second)
    y = _linear(params, head[0], jnp.concatenate(parts, axis=-1))
    for part in head[1:]:
        act = jax.nn.relu(y) if config["head_activation"] == "relu" else nn.activation("gelu", y)
        y = _linear(params, part, act)
    return y
