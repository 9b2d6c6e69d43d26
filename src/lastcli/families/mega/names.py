"""The names of the published Mega models, recognised exactly: an unknown tensor means another forward pass.

- fairseq's classifiers, below `encoder.encoder.`: `embed_tokens.embed.weight` (tokens) or `embed_tokens.weight` and
  `.bias` (real numbers), `embed_norm`, `layers.{i}.mega_layer` with the moving average in `move`, `layers.{i}.nffn`,
  `final_norm`; beside it `classifier.{j}.0` and `sentence_projection_layer`
- transformers, below `mega.`: `embedding_layer`, `layers.{i}` with the moving average in `ema_gate`, `pooler`; beside
  it the head
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lastcli.families.base import Tensors
from lastcli.families.parts.leaves import expect_shape, groups

__all__ = ["Published", "published"]

_LAYER = re.compile(r"(?P<root>(?:.*\.)?)layers\.(?P<index>\d+)\.mega_layer\.(?P<average>move|ema_gate)")
_AVERAGE = {
    "move": ("delta", "alpha", "beta", "gamma", "omega"),
    "ema_gate": (
        "damping_factor",
        "decay_factor",
        "ema_expansion_matrix",
        "kernel_projection_matrix",
        "residual_weight",
    ),
}
# Buffers that say nothing.
_IDLE = ("_float_tensor", "num_batches_tracked")
_LINEAR = tuple(f"mega_layer.{name}.{leaf}" for name in ("v_proj", "mx_proj", "h_proj") for leaf in ("weight", "bias"))
_FEED = tuple(f"nffn.{name}.{leaf}" for name in ("fc1", "fc2") for leaf in ("weight", "bias"))
# transformers' name → fairseq's
_RENAMED = {
    "mega_layer.qk_weight": "mega_layer.gamma",
    "mega_layer.qk_bias": "mega_layer.beta",
    "mega_layer.rel_pos_bias.b_param": "mega_layer.rel_pos_bias.beta",
}
_TABLE = {"mega_layer.rel_pos_bias.rel_pos_bias"}
_ROTARY = {"mega_layer.rel_pos_bias.alpha", "mega_layer.rel_pos_bias.beta"}
_NORMS = {
    frozenset[str](): None,
    frozenset({"scalar"}): "scalenorm",
    frozenset({"weight"}): "rmsnorm",
    frozenset({"weight", "bias"}): "layernorm",
    frozenset({"weight", "bias", "running_mean", "running_var"}): "batchnorm",
    frozenset({"running_mean", "running_var"}): "batchnorm",
}


@dataclass(frozen=True)
class Published:
    """A recognised model.

    Attributes:
        fairseq: fairseq's classifier, or a model of transformers.
        blocks: of every layer, fairseq's name below `layers.{i}.` → tensor; without the moving average.
        ends: role ("embed.weight", "types.weight", "embed_norm.norm.*", "final_norm.norm.*", "classifier.{j}.weight",
            "projection.weight", ...) → tensor.
        head: "pooled", "first" (step), "steps" (an output each) or "hidden" (no head).
        norm: the norm that the tensors show, None where it has none.
        pair: whether the classifier takes two documents.
    """

    fairseq: bool
    blocks: tuple[Mapping[str, str], ...]
    ends: Mapping[str, str]
    head: str
    norm: str | None
    pair: bool

    @property
    def numbers(self) -> bool:
        """Whether the inputs are real numbers instead of tokens."""
        return "embed.bias" in self.ends

    def width(self, tensors: Tensors) -> int:
        """D, the channels of the layers."""
        return tensors[self.blocks[0]["mega_layer.h_proj.weight"]].shape[0]

    def outputs(self, tensors: Tensors) -> int:
        """Size of the last output axis."""
        return self.width(tensors) if self.head == "hidden" else tensors[self.ends["projection.weight"]].shape[0]

    def reach(self, tensors: Tensors) -> int | None:
        """How many steps a learned position bias was made for; None for a rotary one."""
        name = self.blocks[0].get("mega_layer.rel_pos_bias.rel_pos_bias")
        return None if name is None else (tensors[name].shape[0] + 1) // 2

    def check(self, tensors: Tensors) -> None:
        """Do the shapes of the layers fit each other?

        Raises:
            UnsupportedModelError: names the tensor, its shape and what was expected.
        """
        width, hidden = tensors[self.blocks[0]["mega_layer.h_proj.weight"]].shape
        z = tensors[self.blocks[0]["mega_layer.gamma"]].shape[1]
        fixed: dict[str, tuple[int, ...]] = {
            "mega_layer.h_proj.weight": (width, hidden),
            "mega_layer.v_proj.weight": (hidden, width),
            "mega_layer.mx_proj.weight": (z + hidden + 2 * width, width),
            "mega_layer.gamma": (2, z),
            "mega_layer.beta": (2, z),
        }
        if set(self.blocks[0]) >= _ROTARY:
            fixed |= dict.fromkeys(_ROTARY, (1, z - z % 2))
        else:
            fixed |= dict.fromkeys(_TABLE, (2 * (self.reach(tensors) or 0) - 1,))
        for block in self.blocks:
            for role, wanted in fixed.items():
                expect_shape(tensors[block[role]], wanted)
            if "nffn.fc1.weight" in block:
                inner = tensors[block["nffn.fc1.bias"]].shape[0]
                expect_shape(tensors[block["nffn.fc1.weight"]], (inner, width))
                expect_shape(tensors[block["nffn.fc2.weight"]], (width, inner))


def published(tensors: Tensors, layers: Sequence[str]) -> Published | None:
    """The model that the names are those of, or None.

    Args:
        layers: paths of the moving averages, in the order of the layers.
    """
    found = [_LAYER.fullmatch(layer) for layer in layers]
    matches = [match for match in found if match is not None]
    if not matches or len(matches) != len(found) or len({(m["root"], m["average"]) for m in matches}) != 1:
        return None
    if [int(match["index"]) for match in matches] != list(range(len(matches))):
        return None
    root, average = matches[0]["root"], matches[0]["average"]
    names = {name for leaves in groups(tensors).values() for name in leaves.values() if not name.endswith(_IDLE)}
    fairseq = average == "move"
    blocks = [_block(names, f"{root}layers.{i}.", average) for i in range(len(matches))]
    outer = _outer(names, root, fairseq)
    ends = None if outer is None else (_fairseq_ends if fairseq else _transformers_ends)(names, root, outer)
    if outer is None or ends is None or not all(_complete(block, blocks[0]) for block in blocks):
        return None
    used = {name for part in (*blocks, ends) for name in part.values()}
    used |= {f"{layer}.{leaf}" for layer in layers for leaf in _AVERAGE[average]}
    used |= {f"{root}pooler.dense.{leaf}" for leaf in ("weight", "bias") if not fairseq and outer == root}
    if any(name not in used for name in names if name.startswith(outer)):
        return None
    return _assemble(tensors, fairseq, tuple(blocks), ends, outer == root)


def _assemble(
    tensors: Tensors, fairseq: bool, blocks: tuple[Mapping[str, str], ...], ends: Mapping[str, str], bare: bool
) -> Published | None:
    if not all(_has_axes(tensors[name].shape, role) for part in (*blocks, ends) for role, name in part.items()):
        return None
    if len(tensors[ends["embed.weight"]].shape) != (1 if "embed.bias" in ends else 2):
        return None
    kinds = {_norm(part, at) for part in (*blocks, ends) for at in _norm_places(part)}
    if len(kinds) != 1 or "other" in kinds or (fairseq and None in kinds):
        return None
    pair = False
    if fairseq:
        width = tensors[blocks[0]["mega_layer.h_proj.weight"]].shape[0]
        inputs = tensors[ends.get("classifier.0.weight", ends["projection.weight"])].shape[-1]
        if inputs not in (width, 2 * width):
            return None
        pair, head = inputs == 2 * width, "pooled"
    elif bare:
        head = "hidden"
    else:
        head = "first" if ends["projection.weight"].endswith("classifier.out_proj.weight") else "steps"
    return Published(fairseq, blocks, ends, head, kinds.pop(), pair)


def _block(names: set[str], prefix: str, average: str) -> dict[str, str]:
    """fairseq's name → tensor of one layer, without its moving average."""
    own = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    own = {role: name for role, name in own.items() if not role.startswith(f"mega_layer.{average}.")}
    if average == "move":
        return own
    theirs = set(_RENAMED.values())
    return {_RENAMED.get(role, f"not {role}" if role in theirs else role): name for role, name in own.items()}


def _complete(block: Mapping[str, str], first: Mapping[str, str]) -> bool:
    """Whether a layer has every tensor it needs, nothing else, and the same ones as the first layer."""
    roles = set(block)
    plain = {role for role in roles if ".norm.norm." not in role}
    needed = {*_LINEAR, "mega_layer.gamma", "mega_layer.beta"}
    shapes = [needed | bias | feed for bias in (_TABLE, _ROTARY) for feed in (set[str](), set(_FEED))]
    return roles == set(first) and plain in shapes


def _has_axes(shape: tuple[int, ...], role: str) -> bool:
    """Whether a tensor has the axes of its role: two for matrices and one for what belongs to a norm, or is a bias."""
    if ".norm." in role or "_norm." in role or role.endswith((".bias", ".rel_pos_bias")):
        return len(shape) == 1
    return len(shape) == 2 or role == "embed.weight"


def _norm_places(part: Mapping[str, str]) -> list[str]:
    """Where a layer, or the model around the layers, has a norm."""
    places = ["mega_layer.norm.norm."] if "mega_layer.gamma" in part else []
    places += ["nffn.norm.norm."] if "nffn.fc1.weight" in part else []
    return places + sorted({f"{role.split('.')[0]}.norm." for role in part if role.split(".")[0].endswith("_norm")})


def _norm(part: Mapping[str, str], at: str) -> str | None:
    return _NORMS.get(frozenset(role.removeprefix(at) for role in part if role.startswith(at)), "other")


def _outer(names: set[str], root: str, fairseq: bool) -> str | None:
    """What stands before the head's names."""
    if not fairseq:
        return root.removesuffix("mega.")
    outers = [root.removesuffix(end) for end in ("encoder.encoder.", "encoder.", "")]
    return next((outer for outer in outers if f"{outer}sentence_projection_layer.weight" in names), None)


def _fairseq_ends(names: set[str], root: str, outer: str) -> dict[str, str] | None:
    table, numbers = f"{root}embed_tokens.embed.weight", [f"{root}embed_tokens.{leaf}" for leaf in ("weight", "bias")]
    if table in names:
        ends = {"embed.weight": table}
    elif set(numbers) <= names:
        ends = dict(zip(("embed.weight", "embed.bias"), numbers, strict=True))
    else:
        return None
    for at in ("embed_norm.norm.", "final_norm.norm."):
        ends |= {name.removeprefix(root): name for name in names if name.startswith(root + at)}
    depth = 0
    while f"{outer}classifier.{depth}.0.weight" in names:
        for leaf in ("weight", "bias"):
            ends[f"classifier.{depth}.{leaf}"] = f"{outer}classifier.{depth}.0.{leaf}"
        depth += 1
    ends["projection.weight"] = f"{outer}sentence_projection_layer.weight"
    return ends if set(ends.values()) <= names else None


def _transformers_ends(names: set[str], root: str, outer: str) -> dict[str, str] | None:
    ends = {"embed.weight": f"{root}embedding_layer.word_embeddings.weight"}
    types = f"{root}embedding_layer.token_type_embeddings.weight"
    if types in names:
        ends["types.weight"] = types
    if outer != root:
        heads = [f"{outer}{head}" for head in ("classifier.out_proj", "mlm_head", "classifier", "qa_outputs")]
        head = next((head for head in heads if f"{head}.weight" in names or head in _tied(outer, names)), None)
        if head is None:
            return None
        ends |= {f"projection.{leaf}": f"{head}.{leaf}" for leaf in ("weight", "bias")}
        if head in _tied(outer, names):
            # safetensors files keep one of two names of a tensor
            ends["projection.weight"] = ends["embed.weight"]
        hidden = {heads[0]: f"{outer}classifier.dense", heads[1]: f"{outer}dense"}.get(head)
        if hidden is not None and f"{hidden}.weight" in names:
            ends |= {f"classifier.0.{leaf}": f"{hidden}.{leaf}" for leaf in ("weight", "bias")}
    return ends if set(ends.values()) <= names else None


def _tied(outer: str, names: set[str]) -> tuple[str, ...]:
    """The head whose weight is the table of the embedding, and has no name of its own."""
    head = f"{outer}mlm_head"
    return (head,) if f"{head}.bias" in names and f"{head}.weight" not in names else ()
