"""The equinox model that LinOSS, LRU and S5 share in tk-rusch/linoss, damped-linoss, log-neural-cdes and CompreSSM.

    linear_encoder → blocks [batch norm → layer → gelu → w1(x)·σ(w2(x))] + skip → mean over time → linear_layer

Names: `linear_encoder`, `blocks.{i}` with `ssm`, `lru` or `layer`, `glu.w1`, `glu.w2` and `norm`, and `linear_layer`
(damped-linoss: `linear_decoder`; CompreSSM for pairs of documents: `dual_head`). The norm has no parameters; its
running statistics live in an `eqx.nn.State` beside the model and have to be written into the file with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lastcli.families.base import Config, Layer, Option, Tensors
from lastcli.families.parts.leaves import canonical, groups, is_counter

__all__ = ["EQUINOX_KEYS", "EQUINOX_OPTIONS", "EquinoxModel", "Statistics", "equinox_lacks", "find_equinox", "norm_of"]

EQUINOX_OPTIONS = (
    Option("output_step", int, 1, "regression: an output at every so many steps (equinox model)"),
    Option("tanh_output", bool, True, "regression: the outputs go through tanh (equinox model)"),
)
EQUINOX_KEYS = frozenset(option.key for option in EQUINOX_OPTIONS)


class Statistics(NamedTuple):
    """What a batch normalisation knows of its inputs: names of tensors, or of leaves below its path.

    Attributes:
        mean: running mean, (H,).
        variance: running variance, (H,).
        updates: how many batches they have seen, where they still need a correction for that.
    """

    mean: str
    variance: str
    updates: str | None = None


_SPELLINGS = (
    Statistics("running_mean", "running_var"),  # PyTorch, and the export in docs/families/linoss.md
    Statistics("state_index/0", "state_index/1"),  # equinox before its norm had modes
    Statistics("ema_state_index/0", "ema_state_index/1"),
    Statistics("batch_state_index/0", "batch_state_index/1", "batch_counter"),
)
_COUNTED_BY_TORCH = "num_batches_tracked"
# Beside a norm, and not needed; `init` is what the statistics started from.
_NEEDLESS = re.compile(rf"{_COUNTED_BY_TORCH}|(ema_)?first_time_index|(\w+_index|batch_counter)/init(/[01])?")
_LAYER = re.compile(r"(?P<root>(?:.*/)?)blocks/(?P<index>\d+)/(ssm|lru|layer)")
_NORM = re.compile(r"(?:.*/)?blocks/(?P<index>\d+)/norm/(?P<leaf>.*)")
_HEADS = (("linear_layer",), ("linear_decoder",), ("dual_head/layer1", "dual_head/layer2", "dual_head/layer3"))


class EquinoxModel(NamedTuple):
    """The tensors around the layers.

    Attributes:
        names: path below the model's root ("blocks/0/glu/w1/weight") → tensor name, the norms not included.
        head: paths of the linear maps of the head, in order.
        norms: leaf below `blocks/{i}/norm` → tensor name, for each block.
    """

    names: Mapping[str, str]
    head: tuple[str, ...]
    norms: tuple[Mapping[str, str], ...]

    @property
    def embeds(self) -> bool:
        """Whether the encoder is a table of token embeddings; a linear one has a bias."""
        return "linear_encoder/bias" not in self.names

    @property
    def pair(self) -> bool:
        """Whether the head compares two documents."""
        return len(self.head) > 1

    @property
    def torch(self) -> bool:
        """Whether PyTorch wrote the file."""
        return any(_COUNTED_BY_TORCH in norm for norm in self.norms)

    @property
    def without_statistics(self) -> int | None:
        """The first block whose norm has no statistics in the file, or None."""
        return next((i for i in range(len(self.norms)) if self.statistics(i) is None), None)

    def statistics(self, block: int) -> Statistics | None:
        """Names of the tensors with a block's statistics, or None where they are not in the file."""
        norm = self.norms[block]
        for leaves in _SPELLINGS:
            if all(leaf is None or leaf in norm for leaf in leaves):
                updates = None if leaves.updates is None else norm[leaves.updates]
                return Statistics(norm[leaves.mean], norm[leaves.variance], updates)
        return None


def find_equinox(tensors: Tensors, layers: Sequence[str]) -> EquinoxModel | None:
    """The model around the layers at these paths, or None where any tensor of the file has no place in it."""
    own = [_path(layer) for layer in layers]
    found = [match for match in map(_LAYER.fullmatch, own) if match is not None]
    roots = {match["root"] for match in found}
    if len(roots) != 1 or [match["index"] for match in found] != [str(i) for i in range(len(own))]:
        return None
    root = roots.pop()
    names: dict[str, str] = {}
    norms: tuple[dict[str, str], ...] = tuple({} for _ in own)
    for name in (name for leaves in groups(tensors).values() for name in leaves.values()):
        if is_counter(tensors[name]):
            continue
        path = _path(name)
        norm = _NORM.fullmatch(path)
        if norm is not None and int(norm["index"]) < len(norms):
            norms[int(norm["index"])][norm["leaf"]] = name
        elif path.rpartition("/")[0] not in own:
            names[path.removeprefix(root)] = name
    head = next((maps for maps in _HEADS if f"{maps[0]}/weight" in names), ())
    model = EquinoxModel(names, head, norms)
    return model if _complete(model) and _shapes_fit(model, tensors) else None


def equinox_lacks(tensors: Tensors, config: Config, layers: Sequence[Layer]) -> str | None:
    """What keeps the model from running, and what to do, where only the statistics of its norms are missing."""
    model = find_equinox(tensors, [layer.name for layer in layers])
    if model is None or model.without_statistics is None or norm_of(config) != "batch":
        return None
    norm = f"blocks.{model.without_statistics}.norm"
    return (
        f"the running statistics of its batch normalisation are not in the file ({norm}.running_mean and running_var); "
        "equinox keeps them in eqx.nn.State: write the file from model and state as docs/families/linoss.md shows"
    )


def norm_of(config: Config) -> str:
    """The norm before a layer: what the description says, else that of the published code."""
    norm = str(config.get("norm", "auto"))
    return "batch" if norm == "auto" else norm


def _path(name: str) -> str:
    """A name with "/" between its parts; `jax.tree_util.keystr` writes the place in a list as [0]."""
    return canonical(re.sub(r"\[(\d+)\]", r"/\1", name))


def _complete(model: EquinoxModel) -> bool:
    """Whether every map is there and nothing else is."""
    gates = [f"blocks/{i}/glu/w{j}" for i in range(len(model.norms)) for j in (1, 2)]
    needed = {f"{path}/{leaf}" for path in (*gates, *model.head) for leaf in ("weight", "bias")}
    needed |= {"linear_encoder/weight"} | ({"linear_encoder/bias"} & model.names.keys())
    known = {leaf for leaves in _SPELLINGS for leaf in leaves}
    beside = {leaf for norm in model.norms for leaf in norm} - known
    return bool(model.head) and needed == model.names.keys() and all(map(_NEEDLESS.fullmatch, beside))


def _shapes_fit(model: EquinoxModel, tensors: Tensors) -> bool:
    """Whether every map takes what the one before it gives."""
    shapes = {path: tensors[name].shape for path, name in model.names.items()}
    if any(len(shape) != (2 if path.endswith("/weight") else 1) for path, shape in shapes.items()):
        return False
    width = shapes["linear_encoder/weight"][1 if model.embeds else 0]
    fits = all(shape == (width, width) for path, shape in shapes.items() if re.search(r"/glu/w[12]/weight$", path))
    vectors = {leaf for leaves in _SPELLINGS for leaf in leaves[:2]}
    fits &= all(tensors[norm[leaf]].shape == (width,) for norm in model.norms for leaf in vectors & norm.keys())
    for path in model.head:
        fits &= shapes[f"{path}/weight"][1] == (2 * width if path.endswith("layer1") else width)
        width = shapes[f"{path}/weight"][0]
    biases = (path for path in shapes if path.endswith("/bias"))
    return fits and all(shapes[path][0] == shapes[path.removesuffix("bias") + "weight"][0] for path in biases)
