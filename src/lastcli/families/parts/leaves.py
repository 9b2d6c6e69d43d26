"""Tensor names split into a layer's path and a leaf, and what a family tells from names and shapes alone.

Flax, equinox and torch join the parts of a path by "/" or "."; the leaf is what follows the last of either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from lastcli.containers.base import TensorInfo
from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Match, Tensors

__all__ = [
    "canonical",
    "expect_shape",
    "groups",
    "in_running_order",
    "is_counter",
    "is_of_optimizer",
    "layer_name",
    "match_of",
    "split",
]

# The moments of an optimizer carry the names of the tensors they belong to.
_OPTIMIZERS = {"opt_state", "optimizer", "optimizer_state_dict"}
_COUNTERS = {"count", "epoch", "global_step", "iteration", "step"}


def canonical(name: str) -> str:
    """A tensor name or layer path with "/" between its parts, however the container joins them."""
    return "/".join(part for part in re.split(r"[/.]", name) if part)


def split(name: str) -> tuple[str, str]:
    """(path with its last separator, leaf) of a tensor name."""
    cut = max(name.rfind("/"), name.rfind(".")) + 1
    return name[:cut], name[cut:]


def is_of_optimizer(name: str) -> bool:
    """Whether a tensor or path lies below an optimizer."""
    return not _OPTIMIZERS.isdisjoint(canonical(name).split("/"))


def layer_name(prefix: str) -> str:
    """A path as it is shown: without the last separator; a layer at the top of the file is called "layer"."""
    return prefix.rstrip("/.") or "layer"


def groups(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{path: {leaf: full name}} of every tensor that is not an optimizer's, numbered paths in numeric order."""
    found: dict[str, dict[str, str]] = {}
    for name in tensors:
        if not is_of_optimizer(name):
            prefix, leaf = split(name)
            found.setdefault(prefix, {})[leaf] = name
    return {prefix: found[prefix] for prefix in in_running_order(found)}


def is_counter(info: TensorInfo) -> bool:
    """Whether a tensor counts the steps of a training run, as those of a flax TrainState do: no part of a model."""
    name = canonical(info.name).rpartition("/")[2]
    return info.size == 1 and info.dtype.startswith(("int", "uint")) and name in _COUNTERS


def in_running_order(names: Iterable[str]) -> list[str]:
    """Names sorted with their numbers as numbers: layer 10 comes after layer 2."""

    def key(name: str) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]

    return sorted(names, key=key)


def match_of(
    family: str, candidates: Iterable[tuple[str, int, Sequence[str]]], named: Callable[[str], str] = layer_name
) -> Match:
    """A `Match` from what looks like a family's layers.

    Args:
        candidates: of each, its path, how many of its tensors the family explains, and the leaves that it lacks.
        named: from the path to the layer's name.
    """
    layers: list[str] = []
    missing: list[str] = []
    found = 0
    for prefix, explained, lacking in candidates:
        found += explained
        missing += [prefix + leaf for leaf in lacking]
        layers += [] if lacking else [named(prefix)]
    return Match(family, tuple(layers), tuple(missing), found)


def expect_shape(info: TensorInfo, *shapes: tuple[int, ...]) -> None:
    """Refuse a tensor whose shape is none of `shapes`.

    Raises:
        UnsupportedModelError: names the tensor, its shape and what was expected.
    """
    if tuple(info.shape) not in shapes:
        wanted = " or ".join(str(shape) for shape in dict.fromkeys(shapes))
        raise UnsupportedModelError(f"Tensor {info.name} has shape {tuple(info.shape)}; expected {wanted}.")
