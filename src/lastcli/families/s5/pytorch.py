"""s5-pytorch (github.com/i404788/s5-pytorch): S5 layers in PyTorch, and its transformer-style blocks.

Names of a layer: `Lambda` (P,) complex, `B` (P, H, 2) real, `C` (H, P) complex, twice as wide with the forward half
first where bidirectional, `log_step` (P,), `D` (H,). The whole spectrum is stored; the output is the real part, without
a factor 2. The code's `liquid` and `degree` variants have the same tensors but are not linear; they are not told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, Match, Option, Tensors
from lastcli.families.parts.leaves import groups, layer_name, match_of
from lastcli.families.s5.layers import S5Layers

__all__ = ["S5Pytorch"]

_ROLES = ("Lambda", "B", "C", "D", "log_step")
_BLOCK = ("attn_norm.weight", "attn_norm.bias", "ff_enc.weight", "ff_dec.weight", "ff_norm.weight", "ff_norm.bias")


class S5Pytorch(S5Layers):
    """S5 layers with their whole spectrum in native complex numbers, alone or in the published blocks."""

    name = "s5_pytorch"
    title = "s5-pytorch"
    options = (
        Option("discretization", str, "zoh", "how the layers are made discrete", ("zoh", "bilinear")),
        Option("bidirectional", bool, False, "a second read-out for the backward scan"),
        Option("step_rescale", float, 1.0, "factor on all step sizes (`step_scale` of the code)"),
    )

    def match(self, tensors: Tensors) -> Match:
        """Layers are the paths with a one-dimensional `Lambda` beside `log_step`, `B` or `C`."""
        return match_of(
            self.name,
            (
                (layer_name(prefix), len(roles), [prefix + role for role in _ROLES if role not in roles])
                for prefix, roles in _candidates(tensors).items()
            ),
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """The direction, from the width of the read-out."""
        proven = {}
        for roles in _candidates(tensors).values():
            if "C" in roles:
                states = tensors[roles["Lambda"]].shape[0]
                proven["bidirectional"] = tensors[roles["C"]].shape[-1] == 2 * states
        return proven

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """Every layer in running order, its shapes checked."""
        return tuple(
            Layer(layer_name(prefix), _check_shapes(roles, tensors, config), 1, dict(roles))
            for prefix, roles in _candidates(tensors).items()
        )

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """A single layer, or a stack of published blocks with nothing else around them."""
        prefixes = [layer.tensors["Lambda"].removesuffix("Lambda") for layer in layers]
        others = set(tensors) - {name for layer in layers for name in layer.tensors.values()}
        if len(layers) == 1 and not others:
            return _sequence_model(tensors, layers, [{}])
        blocks = [block for prefix in prefixes if (block := _block_of(prefix, tensors)) is not None]
        if len(blocks) < len(layers) or others != {name for block in blocks for name in block.values()}:
            return None
        return _sequence_model(tensors, layers, blocks)


def _candidates(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{prefix: {role: name}} of everything that looks like a layer of this code, complete or not."""
    found = {}
    for prefix, leaves in groups(tensors).items():
        roles = {role: leaves[role] for role in _ROLES if role in leaves}
        if "Lambda" in roles and len(roles) >= 3 and len(tensors[roles["Lambda"]].shape) == 1:
            found[prefix] = roles
    return found


def _check_shapes(roles: Mapping[str, str], tensors: Tensors, config: Config) -> int:
    """P, once every tensor of a layer agrees on it.

    Raises:
        UnsupportedModelError: names the tensor, its shape and the one it should have.
    """
    states = tensors[roles["Lambda"]].shape[0]
    width = tensors[roles["D"]].shape[0] if tensors[roles["D"]].shape else 0
    columns = 2 * states if config["bidirectional"] else states
    expected = {
        "log_step": ((states,), (states, 1)),
        "B": ((states, width, 2),),
        "C": ((width, columns), (width, columns, 2)),
        "D": ((width,),),
    }
    for role, shapes in expected.items():
        if tensors[roles[role]].shape not in shapes:
            raise UnsupportedModelError(
                f"{roles[role]} has the shape {tensors[roles[role]].shape}, but a layer with {states} states and "
                f"{width} features needs {shapes[0]}; the axes may be exchanged or the tensors of two models mixed."
            )
    return states


def _block_of(prefix: str, tensors: Tensors) -> dict[str, str] | None:
    """{role: tensor name} of the published block (`S5Block`) around the layer at `prefix`, or None."""
    root = prefix.removesuffix("s5.seq.")
    block = {role: root + role for role in _BLOCK}
    return block if prefix != root and all(name in tensors for name in block.values()) else None


def _sequence_model(tensors: Tensors, layers: Sequence[Layer], blocks: Sequence[Mapping[str, str]]) -> Forward:
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
