"""The branches of a tree that are optimizer state: known by their names, or by what they look like.

A moment (optax: `mu`, `nu`, `trace`, ...) is a tree with the paths and shapes of parameters that stand elsewhere in the
same file. Wherever one lies, it and what is around it (counts, hyperparameters) is optimizer state. It belongs to the
parameters before pruning, so it is neither counted nor carried on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lastcli.containers.base import TensorInfo
from lastcli.containers.inputs import shown

__all__ = ["drop_optimizer"]

Path = tuple[Any, ...]
Measure = Callable[[Any], TensorInfo | None]

# Keys under which training code keeps the whole of it.
_BRANCHES = {
    "opt_state",
    "opt_states",
    "optim",
    "optim_state",
    "optimizer",
    "optimizer_state",
    "optimizer_state_dict",
    "optimizer_states",
    "optimizers",
}
# The fields of optax's states that mirror the parameters, and those of hand-written optimizers, which others use too.
_OPTAX = {
    "acc_grads",
    "e_g",
    "e_x",
    "exp_avg",
    "exp_avg_sq",
    "momentum",
    "mu",
    "nu",
    "nu_max",
    "sum_of_squares",
    "trace",
    "velocity",
}
_SHORT = {"m", "v"}
# The model, where a branch of the optimizer's name holds it (flax.optim.Optimizer, flax.nnx.Optimizer).
_MODELS = ("target", "params", "model")


def drop_optimizer(tree: dict[str, Any], measure: Measure) -> tuple[str, ...]:
    """Remove optimizer state from a tree, in place.

    Known: branches named as in `_BRANCHES`, beside a model; `state` with `param_states` beside `target` (the old
    flax.optim.Optimizer); and moments under any name that mirror parameters, at any depth.

    Args:
        measure: the `TensorInfo` of a leaf, None where it is no tensor.

    Returns:
        One sentence for each branch removed.
    """
    leaves = {path: info for path, leaf in _leaves(tree, ()) if (info := measure(leaf)) is not None}
    found: list[Path] = []
    for path, node in _nodes(tree, ()):
        if not _lies_below(path, found) and _is_named(path, node, leaves):
            found.append(path)
    rest = {path: info for path, info in leaves.items() if not _lies_below(path, found)}
    moments: list[Path] = []
    for keys in (_OPTAX, _SHORT):
        moments += _moments({path: info for path, info in rest.items() if not _lies_below(path, moments)}, keys)
    found += sorted({_whole(path, moments, rest) for path in moments}, key=str)
    return tuple(_removed(tree, path, leaves) for path in found)


def _is_named(path: Path, node: Any, leaves: Mapping[Path, TensorInfo]) -> bool:
    """Whether a branch is an optimizer's by its name, and the model stands outside it."""
    if not path or not isinstance(node, dict | list):
        return False
    if path[-1] == "state":
        # the parent is looked at through what it holds: `target` beside
        beside = (*path[:-1], "target")
        return isinstance(node, dict) and "param_states" in node and any(p[: len(beside)] == beside for p in leaves)
    if path[-1] not in _BRANCHES or (isinstance(node, dict) and any(key in node for key in _MODELS)):
        return False
    return any(info.size > 1 and p[: len(path)] != path for p, info in leaves.items())


def _moments(leaves: Mapping[Path, TensorInfo], keys: set[str]) -> list[Path]:
    """Paths of the trees under one of these keys that mirror parameters of the same file.

    A layer of a model may be called `mu` or `v` and have its sister's shapes. So a step count stands beside a moment,
    as beside Adam's; or nothing but moments does, and those of one name mirror a good part of all there is.
    """
    inside: dict[Path, dict[Path, TensorInfo]] = {}
    beside: dict[Path, TensorInfo] = {}
    for path, info in leaves.items():
        at = next((depth for depth, key in enumerate(path) if key in keys), None)
        # a leaf of that name is a parameter called `v`; a moment of one tensor mirrors nothing
        if at is None or at == len(path) - 1 or path[at + 1 :] == ("value",):
            beside[_plain(path)] = info
        else:
            inside.setdefault(path[: at + 1], {})[_plain(path[at + 1 :])] = info
    ends: dict[Any, list[Path]] = {}
    for path in beside:
        ends.setdefault(path[-1], []).append(path)
    mirrors = [path for path, tree in inside.items() if _mirrors(path, tree, beside, ends)]
    covered: dict[Any, int] = {}
    for path in mirrors:
        covered[path[-1]] = covered.get(path[-1], 0) + sum(info.size for info in inside[path].values())
    enough = sum(info.size for info in beside.values()) / 4
    counts = {path[:-1] for path, info in beside.items() if path[-1] == "count" and info.size == 1}
    return [
        path
        for path in mirrors
        if _plain(path[:-1]) in counts or (covered[path[-1]] >= enough and _holds_only(path[:-1], mirrors, leaves))
    ]


def _mirrors(
    path: Path, tree: Mapping[Path, TensorInfo], parameters: Mapping[Path, TensorInfo], ends: Mapping[Any, list[Path]]
) -> bool:
    """Whether every leaf of a tree is, below one path, a parameter of the same shape; sisters do not count."""
    first = next(iter(tree))
    roots = [end[: -len(first)] for end in ends.get(first[-1], []) if end[-len(first) :] == first]
    around = tuple(map(str, path[:-1]))
    return any(
        (not root or root[:-1] != around or not around)
        and all(_shape(parameters.get((*root, *leaf))) == info.shape for leaf, info in tree.items())
        for root in roots
    )


def _shape(info: TensorInfo | None) -> tuple[int, ...] | None:
    return None if info is None else info.shape


def _whole(path: Path, moments: list[Path], leaves: Mapping[Path, TensorInfo]) -> Path:
    """The largest branch around a moment that holds nothing but moments and single numbers."""
    while len(path) > 1 and path[-1] not in _BRANCHES:
        if not _holds_only(path[:-1], moments, leaves):
            break
        path = path[:-1]
    return path


def _holds_only(branch: Path, moments: list[Path], leaves: Mapping[Path, TensorInfo]) -> bool:
    """Whether all below a branch, if it is not the root, are moments and single numbers."""
    own = (path for path, info in leaves.items() if path[: len(branch)] == branch and info.size > 1)
    return not branch or all(_lies_below(path, moments) for path in own)


def _removed(tree: dict[str, Any], path: Path, leaves: Mapping[Path, TensorInfo]) -> str:
    """The sentence for a branch, once it is taken out of the tree."""
    node: Any = tree
    for key in path[:-1]:
        node = node[key]
    if isinstance(node, dict):
        del node[path[-1]]
    else:
        # the others keep their places in a list
        node[path[-1]] = {}
    own = [info for p, info in leaves.items() if p[: len(path)] == path]
    name = shown("/".join(map(str, path)))
    if not own:
        return f"The optimizer state '{name}' is not carried on."
    return (
        f"The optimizer state '{name}' ({len(own)} tensors, {sum(info.nbytes for info in own):,} bytes) is not carried "
        "on: it belongs to the parameters before pruning."
    )


def _plain(path: Path) -> Path:
    """A path with text for keys and without the `value` in which flax.nnx keeps a variable."""
    return tuple(str(key) for key in (path[:-1] if len(path) > 1 and path[-1] == "value" else path))


def _lies_below(path: Path, branches: list[Path]) -> bool:
    return any(path[: len(branch)] == branch for branch in branches)


def _children(node: dict[Any, Any] | list[Any]) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, dict):
        yield from node.items()
    else:
        yield from enumerate(node)


def _nodes(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every branch, the outer ones first."""
    if isinstance(node, dict | list):
        yield path, node
        for key, child in _children(node):
            yield from _nodes(child, (*path, key))


def _leaves(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(node, dict | list):
        for key, child in _children(node):
            yield from _leaves(child, (*path, key))
    else:
        yield path, node
