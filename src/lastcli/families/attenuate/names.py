"""How aTENNuate spells its layers and the denoiser around them, and the order that they run in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lastcli.families.base import Tensors
from lastcli.families.parts.leaves import canonical, groups

__all__ = ["ROLES", "Block", "Denoiser", "around", "find_denoiser", "find_layers"]

ROLES = ("log_dt", "A", "B", "C")

_BLOCK = re.compile(r"(?P<root>(?:.*/)?)(?P<part>down_ssms|up_ssms|hid_ssms|last_ssms)/(?P<rest>\d+(?:/\d+)?)/\d+")
_STAGES = ("down_ssms", "hid_ssms", "up_ssms", "last_ssms")


@dataclass(frozen=True)
class Block:
    """A state space layer with what belongs to it: [convolution over three steps →] layer [→ norm] [→ SiLU].

    Attributes:
        layer: its path with "/" between the parts.
        convolution: path of the depthwise convolution before it, or None.
        norm: path of the layer norm after it, or None.
        activated: whether SiLU follows.
        mixing: path of the linear map that folds time into channels after a `down` block, or unfolds before an `up`.
    """

    layer: str
    convolution: str | None
    norm: str | None
    activated: bool
    mixing: str | None = None


@dataclass(frozen=True)
class Denoiser:
    """The published model: blocks that shorten the sequence, two blocks, as many that lengthen it again, two blocks."""

    down: tuple[Block, ...]
    middle: tuple[Block, ...]
    up: tuple[Block, ...]
    last: tuple[Block, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """In running order."""
        return (*self.down, *self.middle, *self.up, *self.last)


def find_layers(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{path: {role: tensor name}} of everything that looks like a layer, complete or not, in running order.

    A layer has A (N, 2) and log_dt (N,), real as B and C are, which have two axes: a step for every state, and no
    pairs, tell it from other layers.
    """
    found = {}
    for prefix, leaves in groups(tensors).items():
        own = {role: leaves[role] for role in ROLES if role in leaves}
        shapes = {role: tuple(tensors[name].shape) for role, name in own.items()}
        real = not any(tensors[name].dtype.startswith("complex") for name in own.values())
        flat = all(len(shapes.get(role, (1, 1))) == 2 for role in ("B", "C"))
        if real and flat and len(shapes.get("A", ())) == 2 and shapes["A"] == (*shapes.get("log_dt", ()), 2):
            found[prefix] = own
    return dict(sorted(found.items(), key=lambda item: _running(item[0])))


def _running(prefix: str) -> tuple[int, tuple[int, ...]]:
    """Where a layer runs: the blocks that lengthen the sequence again run from the last to the first."""
    match = _BLOCK.fullmatch(canonical(prefix))
    if match is None:
        return len(_STAGES), ()
    numbers = tuple(map(int, match["rest"].split("/")))
    return _STAGES.index(match["part"]), tuple(-n for n in numbers) if match["part"] == "up_ssms" else numbers


def find_denoiser(tensors: Tensors, layers: Sequence[str]) -> Denoiser | None:
    """The published model, where every tensor of the file has its place in it; None elsewhere."""
    names = {canonical(name) for name in tensors}
    matches = [_BLOCK.fullmatch(canonical(layer)) for layer in layers]
    roots = {match["root"] for match in matches if match is not None}
    if not matches or None in matches or len(roots) != 1:
        return None
    root = roots.pop()
    paths = {canonical(layer) for layer in layers}
    depth = sum(path.startswith(f"{root}down_ssms/") for path in paths)
    down = [_block(names, paths, f"{root}down_ssms/{i}/0", f"{root}down_ssms/{i}/1") for i in range(depth)]
    up = [_block(names, paths, f"{root}up_ssms/{i}/1", f"{root}up_ssms/{i}/0") for i in reversed(range(depth))]
    middle = [_block(names, paths, f"{root}hid_ssms/{i}") for i in range(2)]
    last = [_block(names, paths, f"{root}last_ssms/{i}", activated=i == 0) for i in range(2)]
    if any(block is None for block in (*down, *up, *middle, *last)):
        return None
    model = Denoiser(*(tuple(b for b in blocks if b is not None) for blocks in (down, middle, up, last)))
    placed = {name for block in model.blocks for name in _of(block)}
    return model if placed == names else None


def _block(
    names: set[str], layers: set[str], path: str, mixing: str | None = None, *, activated: bool = True
) -> Block | None:
    """The block below `path`; None where it is another one."""
    at = next((i for i in range(2) if f"{path}/{i}" in layers), None)
    if at is None or (mixing is not None and f"{mixing}/weight" not in names):
        return None
    norm = f"{path}/{at + 1}/layer_norm"
    return Block(
        f"{path}/{at}",
        f"{path}/0" if at == 1 else None,
        norm if f"{norm}/weight" in names else None,
        activated,
        mixing,
    )


def _of(block: Block) -> list[str]:
    own = [f"{block.layer}/{role}" for role in ROLES]
    for path in (block.convolution, block.norm):
        own += [f"{path}/weight", f"{path}/bias"] if path is not None else []
    return own + ([f"{block.mixing}/weight"] if block.mixing is not None else [])


def around(tensors: Tensors, model: Denoiser) -> Mapping[str, str]:
    """{path: tensor name} of what is no state space layer."""
    stateful = {f"{block.layer}/{role}" for block in model.blocks for role in ROLES}
    return {path: name for name in tensors if (path := canonical(name)) not in stateful}
