"""The model that the S4 repository's training code puts around S4 and DSS layers: which tensor is what. No JAX.

    encoder → blocks [norm → layer → + skip] or [layer → + skip → norm] → norm (with `prenorm`) → pooling → decoder

| part | names, all versions |
|---|---|
| encoder | `encoder.0.weight` (V1, V2: `encoder.weight`), with a bias a linear map, without one an embedding |
| layer i | `model.layers.{i}.layer.` of V1 to V3 and DSS, `model.layers.{i}.layer.layer.` of V4 |
| its output map | `model.layers.{i}.layer.output_linear.0.` with an activation after it, else `output_linear.` |
| gate of V3 | `model.layers.{i}.layer.{input_linear,input_gate}.0.`, `output_gate.` |
| feed-forward | `model.layers.{i}.layer.ff.0.0.`, `ff.2.` |
| norms | `model.layers.{i}.norm.norm.`, `model.norm.norm.` |
| decoder | `decoder.0.output_transform.`, or `decoder.0.retrieval.classifier.{0,2,4}.` for pairs of documents |
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lastcli.families.base import Option, Tensors
from lastcli.families.s4.models.example import EXAMPLE_OPTIONS

__all__ = [
    "Block",
    "Ends",
    "Linear",
    "Norm",
    "SequenceNames",
    "find_sequence_model",
    "gated_output",
    "proofs",
    "sequence_options",
]

_LAYER = re.compile(r"(?P<root>(?:.*\.)?)model\.layers\.(?P<index>\d+)\.layer(?:\.layer)?")
_POSTACTS = ("auto", "none", "glu", "glu-gelu", "glu-silu", "gelu", "relu", "silu", "tanh", "sigmoid")


def sequence_options(mask_padding: bool) -> tuple[Option, ...]:
    """Options of the example model and of this one.

    Args:
        mask_padding: what the layers of the family do where nothing is said.
    """
    modes = ("pool", "last", "first", "sum", "sequence")
    mode = Option("mode", str, "pool", "mean over time, one end of it, the sum, or one output a step", modes)
    return (
        *(mode if option.key == mode.key else option for option in EXAMPLE_OPTIONS),
        Option(
            "norm",
            str,
            "auto",
            "kind of the norms; auto: as their tensors say, a weight and a bias alone being layer",
            ("auto", "layer", "batch", "group", "instance", "none"),
        ),
        Option("residual", str, "R", "skip: R x+y, A x+cy, F y, D decaying with depth", ("R", "A", "F", "D")),
        Option("postact", str, "auto", "activation after the output map (in V4 final_act); auto: by shape", _POSTACTS),
        Option("ff_activation", str, "gelu", "activation inside feed-forward blocks", _POSTACTS[1:]),
        Option("l_output", int, 0, "outputs at this many steps, side by side; 0: one"),
        Option("use_lengths", bool, True, "whether the decoder stops at the true length of padded data"),
        Option("mask_padding", bool, mask_padding, "whether padded steps are zero at the input of every layer"),
        Option("head_activation", str, "relu", "activation of the head for pairs", ("relu", "gelu")),
    )


@dataclass(frozen=True)
class Linear:
    """A linear map's tensors.

    Attributes:
        weight: (out, in), or its direction where the norm is held apart.
        gain: (out, 1), the norm of each row of a weight-normalised map.
        bias: (out,) or (out, 1).
        shape: (out, in).
        activated: whether the names show that something follows in the same module.
    """

    weight: str
    gain: str | None
    bias: str | None
    shape: tuple[int, int]
    activated: bool


@dataclass(frozen=True)
class Norm:
    """A norm's tensors by role: `m` and `s`, or `weight`, `bias`, `running_mean`, `running_var`.

    Attributes:
        stored: "scalar" (one scale and shift), "batch" (statistics), "affine" (weight and bias), or "bare" (nothing).
    """

    roles: Mapping[str, str]
    stored: str


@dataclass(frozen=True)
class Block:
    """One residual block: a state space layer, or a feed-forward one (`hidden` → `output`).

    Attributes:
        gate: input_linear (or None), input_gate and output_gate of a gated layer of V3.
        affine: the learned factor of the branch.
    """

    norm: Norm
    output: Linear | None
    hidden: Linear | None = None
    bottleneck: Linear | None = None
    gate: tuple[Linear, Linear] | None = None
    affine: str | None = None


@dataclass(frozen=True)
class Ends:
    """What comes before and after the blocks: the encoder (None: there is none) and the head's linear maps."""

    encoder: Linear | None
    embeds: bool
    head: tuple[Linear, ...]
    retrieval: bool


@dataclass(frozen=True)
class SequenceNames:
    """The whole model.

    Attributes:
        width: the model dimension.
        final: the norm after the last block, bare without `prenorm`.
        params: names of all its tensors.
    """

    width: int
    blocks: tuple[Block, ...]
    final: Norm
    ends: Ends
    params: tuple[str, ...]

    @property
    def stored_norm(self) -> str:
        """What all norms of the model store."""
        return self.blocks[0].norm.stored


class _Names:
    """The tensors of a file, and which of them have found their place."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.used: dict[str, None] = {}

    def take(self, name: str) -> str | None:
        if name not in self.tensors:
            return None
        self.used[name] = None
        return name

    def linear(self, stem: str) -> Linear | None:
        """The map at `stem`, alone or first of a sequence; a weight norm keeps direction and length apart."""
        for path, activated in ((f"{stem}.0.", True), (f"{stem}.", False)):
            for direction, length in (("weight", None), ("weight_v", "weight_g")):
                info = self.tensors.get(path + direction)
                if info is None or len(info.shape) not in (2, 3) or info.shape[2:] not in ((), (1,)):
                    continue
                gain = self.take(path + length) if length else None
                if length and gain is None:
                    continue
                bias, weight = self.take(f"{path}bias"), self.take(path + direction)
                return Linear(weight or "", gain, bias, (info.shape[0], info.shape[1]), activated)
        return None

    def norm(self, stem: str) -> Norm:
        roles = {}
        for role in ("m", "s", "weight", "bias", "running_mean", "running_var", "ln.weight", "ln.bias"):
            name = self.take(f"{stem}.norm.{role}")
            if name is not None:
                roles[role.removeprefix("ln.")] = name
        if {"m", "s"} <= roles.keys():
            return Norm(roles, "scalar")
        if "running_mean" in roles:
            return Norm(roles, "batch")
        return Norm(roles, "affine" if "weight" in roles else "bare")

    def unplaced(self, prefixes: Iterable[str], placed: Iterable[str]) -> bool:
        """Whether a tensor below `prefixes` is neither used nor below one of `placed`."""
        within, known = tuple(prefixes), tuple(placed)
        return any(
            name.startswith(within)
            and name not in self.used
            and not name.startswith(known)
            and not name.endswith(".num_batches_tracked")
            for name in self.tensors
        )


def find_sequence_model(tensors: Tensors, layers: Sequence[str]) -> SequenceNames | None:
    """The model around the layers of these names, or None where a name or a shape is not that of the repository."""
    matches = [_LAYER.fullmatch(layer) for layer in layers]
    places = {int(match["index"]): layer for match, layer in zip(matches, layers) if match}
    roots = {match["root"] for match in matches if match}
    if len(places) != len(layers) or len(roots) != 1:
        return None
    root, names = roots.pop(), _Names(tensors)
    stack = f"{root}model.layers."
    numbers = {name[len(stack) :].partition(".")[0] for name in tensors if name.startswith(stack)}
    if numbers != {str(i) for i in range(len(numbers))}:
        return None
    blocks = [_block(names, f"{stack}{i}", i in places) for i in range(len(numbers))]
    final = names.norm(f"{root}model.norm")
    ends = _ends(names, root)
    kernels = [f"{layer}.{leaf}" for layer in layers for leaf in ("kernel.", "D")]
    if ends is None or names.unplaced((f"{root}{part}." for part in ("encoder", "model", "decoder")), kernels):
        return None
    width = ends.encoder.shape[1 if ends.embeds else 0] if ends.encoder else _head_width(ends)
    known = [block for block in blocks if block is not None]
    model = SequenceNames(width, tuple(known), final, ends, tuple(names.used))
    return model if len(known) == len(blocks) and _fits(model, tensors) else None


def _block(names: _Names, path: str, ssm: bool) -> Block | None:
    norm, affine = names.norm(f"{path}.norm"), names.take(f"{path}.residual.affine")
    layer = f"{path}.layer"
    if not ssm:
        hidden, output = names.linear(f"{layer}.ff.0"), names.linear(f"{layer}.ff.2")
        return Block(norm, output, hidden, affine=affine) if hidden and output else None
    gates = names.linear(f"{layer}.input_gate"), names.linear(f"{layer}.output_gate")
    gate = (gates[0], gates[1]) if gates[0] and gates[1] else None
    bottleneck = names.linear(f"{layer}.input_linear")
    return Block(norm, names.linear(f"{layer}.output_linear"), None, bottleneck, gate, affine)


def _ends(names: _Names, root: str) -> Ends | None:
    """One encoder at most and exactly one head; positions in a sequence of modules may be any number."""

    def only(part: str, tail: str) -> str | None:
        pattern = re.compile(rf"({re.escape(root)}{part}(?:\.\d+)?{tail})\.(?:weight|weight_v)")
        stems = {match[1] for match in map(pattern.fullmatch, names.tensors) if match}
        return stems.pop() if len(stems) == 1 else None

    stem = only("encoder", "")
    encoder = names.linear(stem) if stem else None
    output, retrieval = only("decoder", r"\.output_transform"), only("decoder", r"\.retrieval\.classifier\.0")
    if retrieval:
        maps = [names.linear(retrieval.removesuffix("0") + number) for number in "024"]
    else:
        maps = [names.linear(output)] if output else []
    head = tuple(part for part in maps if part is not None)
    if not head:
        return None
    return Ends(encoder, encoder is not None and encoder.bias is None, head, bool(retrieval))


def _head_width(ends: Ends) -> int:
    """The model dimension that the head reads; a head for pairs has two documents, or four features of them."""
    return ends.head[0].shape[1] // (1 if not ends.retrieval else 2 if len(ends.head) == 3 else 4)


def _fits(model: SequenceNames, tensors: Tensors) -> bool:
    """Whether the shapes agree with one model dimension, and all norms with each other."""
    norms = [block.norm for block in model.blocks]
    if any(norm.stored != model.stored_norm for norm in norms) or model.final.stored not in ("bare", model.stored_norm):
        return False
    sizes = {tensors[name].shape for norm in (*norms, model.final) for name in norm.roles.values()}
    if not sizes <= {(1,) if model.stored_norm == "scalar" else (model.width,)}:
        return False
    chain = itertools.pairwise(part.shape for part in model.ends.head)
    return (
        all(_block_fits(block, model, tensors) for block in model.blocks)
        and len({block.affine is None for block in model.blocks}) == 1
        and _head_width(model.ends) == model.width
        and all(before[0] == after[1] for before, after in chain)
    )


def _block_fits(block: Block, model: SequenceNames, tensors: Tensors) -> bool:
    into = [part.shape[1] for part in (block.hidden, block.bottleneck, *(block.gate or ())[:1]) if part]
    if any(size != model.width for size in into):
        return False
    if block.affine and tensors[block.affine].shape not in ((1,), (model.width,)):
        return False
    if block.output is None:
        return True
    rows, columns = block.output.shape
    if block.hidden is not None:
        return rows == model.width and block.hidden.shape[0] in (columns, 2 * columns)
    return rows in (_output_width(block, model), 2 * _output_width(block, model))


def _output_width(block: Block, model: SequenceNames) -> int:
    """Features after a block's output map and the activation that follows it."""
    return block.gate[1].shape[1] if block.gate else model.width


def gated_output(block: Block, model: SequenceNames) -> bool:
    """Whether the output map has two halves, a value and a gate."""
    return block.output is not None and block.output.shape[0] == 2 * _output_width(block, model)


def proofs(tensors: Tensors, layers: Sequence[str]) -> dict[str, Any]:
    """Option values that the tensors around the layers prove; none where the model is another."""
    model = find_sequence_model(tensors, layers)
    if model is None:
        return {}
    proven: dict[str, Any] = {"residual": "A"} if model.blocks[0].affine else {}
    if model.stored_norm != "bare":
        proven["prenorm"] = model.final.stored != "bare"
    if model.stored_norm == "batch":
        proven["norm"] = "batch"
    return proven
