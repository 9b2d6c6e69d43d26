"""How s5-pytorch spells its layers and the published block around them."""

from __future__ import annotations

from collections.abc import Mapping

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Tensors
from lastcli.families.parts.leaves import groups

__all__ = ["ROLES", "block_of", "candidates", "check_shapes"]

ROLES = ("Lambda", "B", "C", "D", "log_step")
_BLOCK = ("attn_norm.weight", "attn_norm.bias", "ff_enc.weight", "ff_dec.weight", "ff_norm.weight", "ff_norm.bias")


def candidates(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{prefix: {role: name}} of everything that looks like a layer of this code, complete or not."""
    found = {}
    for prefix, leaves in groups(tensors).items():
        roles = {role: leaves[role] for role in ROLES if role in leaves}
        if "Lambda" in roles and len(roles) >= 3 and len(tensors[roles["Lambda"]].shape) == 1:
            found[prefix] = roles
    return found


def check_shapes(roles: Mapping[str, str], tensors: Tensors, config: Config) -> int:
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


def block_of(prefix: str, tensors: Tensors) -> dict[str, str] | None:
    """{role: tensor name} of the published block (`S5Block`) around the layer at `prefix`, or None."""
    root = prefix.removesuffix("s5.seq.")
    block = {role: root + role for role in _BLOCK}
    return block if prefix != root and all(name in tensors for name in block.values()) else None
