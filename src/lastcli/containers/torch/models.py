"""The model inside a torch file: which of its dictionaries is a state_dict, and what lies around it.

People save a bare state_dict, or a dictionary that holds one under `model`, `model_state_dict`, `state_dict`
(Lightning), beside an optimizer, an epoch and more; DataParallel and `torch.compile` prefix every name. Nothing here
needs PyTorch: a tensor is what the caller says is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lastcli.containers.extras import representable
from lastcli.containers.inputs import shown
from lastcli.containers.pickle.foreign import Foreign
from lastcli.errors import InputError

__all__ = ["PREFIXES", "Contents", "check_size", "find_models", "take_apart", "tensors_at"]

PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that wrappers put before every name of a state_dict."""

IsTensor = Callable[[Any], bool]

_WRAPPER = re.compile(r"model|module|net|network|weights|params|ema|.*state_dict|.*_model|model_.*")
_TRAINING = re.compile(r".*(optim|sched).*", re.IGNORECASE)
# Keys of a gradient scaler (PyTorch's, Apex' and DeepSpeed's); a scaler of data has none of them.
_GRADIENT_SCALER = {"growth_factor", "_growth_tracker", "loss_scale", "cur_scale"}
_MAX_DEPTH = 64
_MAX_NODES = 1_000_000


@dataclass
class Contents:
    """A torch file taken apart.

    Attributes:
        tensors: the model's tensors by unwrapped name.
        extras: what is neither tensor nor training state, by path from the top of the file.
        dropped: one sentence for everything that is not carried on, apart from
        foreign: values of kinds that are neither built nor carried.
        paths: the true path of tensors and extras whose names do not tell it.
        prefix: what was cut from every tensor name.
        nested: whether the state_dict is itself nested.
        beside: tensors outside the state_dict that are no training state, by the path from the top of the file.
        besides: the true path of each of them.
        others: names of the other models among them.
    """

    tensors: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    foreign: Foreign = field(default_factory=Foreign)
    paths: dict[str, list[str]] = field(default_factory=dict)
    prefix: str = ""
    nested: bool = False
    beside: dict[str, Any] = field(default_factory=dict)
    besides: dict[str, tuple[str, ...]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def find_models(
    tree: Any, is_tensor: IsTensor, where: str, is_model: Callable[[dict[str, Any]], bool] | None = None
) -> dict[str, tuple[str, ...]]:
    """Every state_dict of the file: its path joined with "/" (the empty text for the top itself) → its path.

    Args:
        is_model: whether tensors, by unwrapped name, are a model's. Where it is true of some dictionaries, the others
            (of callbacks, scalers, statistics) are none; where it is true of none, all of them count.

    Raises:
        InputError: the file is nested without end.
    """
    if not isinstance(tree, dict):
        return {}
    check_size(tree, where)
    found = _models(tree, (), is_tensor)
    if is_model is not None and len(found) > 1:
        found = [path for path in found if is_model(tensors_at(tree, path, is_tensor))] or found
    return {"/".join(path): path for path in found}


def take_apart(
    tree: dict[str, Any], at: tuple[str, ...], others: Collection[tuple[str, ...]], is_tensor: IsTensor, where: str
) -> Contents:
    """The model at a path and everything around it.

    Args:
        others: the paths of the other models.

    Raises:
        InputError: a name is not text, or two tensors have the same name.
    """
    contents = Contents()
    model: Any = tree
    for key in at:
        model = model[key]
    leaves = list(_leaves(model, (), is_tensor))
    contents.prefix = _common_prefix(["/".join(map(str, path)) for path, value in leaves if is_tensor(value)])
    for path, value in leaves:
        if not all(isinstance(key, str) for key in path):
            raise InputError(f"{where}: the model has a name that is not text ({shown(path[-1])}); save it anew.")
        name = "/".join(path)
        if is_tensor(value):
            name = name.removeprefix(contents.prefix)
            if name in contents.tensors:
                raise InputError(f"{where}: two tensors are both named '{shown(name)}'; rename one of them.")
            contents.tensors[name] = value
            if len(path) > 1:
                contents.nested = True
            if tuple(name.split("/")) != path:
                contents.paths[name] = list(path)
        else:
            _keep(contents, (*at, *path), value)
    _around(contents, tree, (), at, is_tensor)
    names = ["/".join(path) for path in others]
    contents.others = [name for name in names if any(tensor.startswith(f"{name}/") for tensor in contents.beside)]
    if not contents.nested:
        contents.paths = {name: path for name, path in contents.paths.items() if name not in contents.tensors}
    return contents


def check_size(tree: Any, where: str) -> None:
    """Refuse what would take forever to walk: a pickle can nest a few shared lists into 2⁶⁴ paths.

    Raises:
        InputError: too deep, or too many values.
    """
    stack: list[tuple[Any, int]] = [(tree, 0)]
    nodes = 0
    while stack:
        value, depth = stack.pop()
        nodes += 1
        if depth > _MAX_DEPTH or nodes > _MAX_NODES:
            raise InputError(f"{where} is nested too deep or has too many values to be a checkpoint.")
        if isinstance(value, dict):
            stack.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            stack.extend((item, depth + 1) for item in value)


def tensors_at(tree: dict[Any, Any], at: tuple[str, ...], is_tensor: IsTensor) -> dict[str, Any]:
    """The tensors of the dictionary at a path, by unwrapped name."""
    node: Any = tree
    for key in at:
        node = node[key]
    named = {"/".join(map(str, path)): value for path, value in _leaves(node, (), is_tensor) if is_tensor(value)}
    prefix = _common_prefix(list(named))
    return {name.removeprefix(prefix): tensor for name, tensor in named.items()}


def _models(node: dict[Any, Any], path: tuple[str, ...], is_tensor: IsTensor) -> list[tuple[str, ...]]:
    if _is_training(node, path):
        return []
    direct = any(is_tensor(value) for value in node.values())
    below = {
        key: models
        for key, value in node.items()
        if isinstance(key, str) and isinstance(value, dict) and (models := _models(value, (*path, key), is_tensor))
    }
    if direct and (path or not any(_WRAPPER.fullmatch(key) for key in below)):
        return [path]
    return [model for models in below.values() for model in models]


def _is_training(node: Any, path: tuple[str, ...]) -> bool:
    """Optimizer, scheduler or gradient scaler state, by its form or by its name."""
    if isinstance(node, dict) and "param_groups" in node and "state" in node:
        return True
    if isinstance(node, dict) and not node.keys().isdisjoint(_GRADIENT_SCALER):
        return True
    return bool(path) and _TRAINING.fullmatch(path[-1]) is not None


def _leaves(node: dict[Any, Any], path: tuple[Any, ...], is_tensor: IsTensor) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and any(is_tensor(leaf) for leaf in _all(value)):
            yield from _leaves(value, (*path, key), is_tensor)
        else:
            yield (*path, key), value


def _all(value: Any) -> Iterator[Any]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
        else:
            yield item


def _common_prefix(names: list[str]) -> str:
    prefix = ""
    while names:
        more = next((part for part in PREFIXES if all(name.startswith(prefix + part) for name in names)), "")
        if not more:
            break
        prefix += more
    return prefix


def _around(
    contents: Contents, node: Mapping[Any, Any], path: tuple[str, ...], at: tuple[str, ...], is_tensor: IsTensor
) -> None:
    """Sort what stands beside the model, from the top down to it."""
    if path == at:
        return
    for key, value in node.items():
        here = (*path, str(key))
        if here == at[: len(here)]:
            _around(contents, value, here, at, is_tensor)
            continue
        tensors = sum(1 for leaf in _all(value) if is_tensor(leaf))
        name = shown("/".join(here))
        if _is_training(value, here) or (isinstance(value, list) and value and all(_is_training(v, ()) for v in value)):
            contents.dropped.append(
                f"The training state '{name}' ({tensors} tensors) is not carried on: it belongs to the "
                "parameters before pruning."
            )
        elif tensors:
            _beside(contents, here, value, is_tensor)
        elif isinstance(key, str):
            _keep(contents, here, value)
        else:
            contents.dropped.append(f"The entry '{name}' has a key that is not text and is not carried on.")


def _beside(contents: Contents, path: tuple[str, ...], value: Any, is_tensor: IsTensor) -> None:
    """Keep tensors that stand beside the model, and what lies among them."""
    name = "/".join(path)
    if isinstance(value, dict) and any(is_tensor(leaf) for leaf in _all(value)):
        for key, item in value.items():
            _beside(contents, (*path, str(key)), item, is_tensor)
    elif not is_tensor(value):
        if any(is_tensor(leaf) for leaf in _all(value)):
            contents.dropped.append(f"'{shown(name)}', a {type(value).__name__} of tensors, is not carried on.")
        else:
            _keep(contents, path, value)
    elif name in contents.tensors or name in contents.beside:
        contents.dropped.append(f"'{shown(name)}', beside the model, is named as a tensor of it and not carried on.")
    else:
        contents.beside[name], contents.besides[name] = value, path


def _keep(contents: Contents, path: tuple[str, ...], value: Any) -> None:
    """Keep a value that is no tensor; nested dictionaries by path."""
    if type(value) is dict and value and all(isinstance(key, str) for key in value):
        for key, item in value.items():
            _keep(contents, (*path, key), item)
        return
    name = "/".join(path)
    if isinstance(value, dict) and type(value) is not dict:
        value = dict(value)
    if not representable(value):
        contents.foreign.add(name, value)
        return
    if name.startswith("last.") or name in contents.extras:
        contents.dropped.append(f"'{shown(name)}', whose name is taken, is not carried on.")
        return
    contents.extras[name] = value
    if tuple(name.split("/")) != path:
        contents.paths[name] = list(path)
