"""Nested containers: trees of leaves to flat names and back.

A leaf's name is its path joined with "/"; the `value` in which flax.nnx keeps a variable is left out of it. Three
things the names alone do not tell travel as extras, so that a conversion through a flat container comes back as it was:

* an empty list at a path that also has children says that these children, "0", "1", ..., are a list;
* `extras["last.structure"]["paths"]` holds the true path of every name that does not split at "/" into its path;
* `extras["last.structure"]["integers"]` says at which depths the path of a name has a number for a key, not text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lastcli.containers import structure
from lastcli.containers.base import TensorSource
from lastcli.containers.extras import STRUCTURE_KEY, representable
from lastcli.containers.inputs import shown
from lastcli.errors import InputError, OutputError

__all__ = ["Flat", "arranged", "build", "flatten", "is_extra", "path_of"]

# Where flax.nnx keeps the array of a variable, and flax.linen that of a boxed parameter.
_VARIABLE = "value"


@dataclass
class Flat:
    """A tree as flat names.

    Attributes:
        leaves: the tensors by name, in tree order.
        extras: everything else by name, and the structure key where it is needed.
    """

    leaves: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)


def flatten(tree: Mapping[str, Any], is_tensor: Callable[[Any], bool], where: str) -> Flat:
    """Flat names of a tree of dicts, lists and leaves.

    Raises:
        InputError: two leaves have the same name, or a leaf is of a kind that cannot be carried.
    """
    flat = Flat()
    paths: dict[str, list[str]] = {}
    integers: dict[str, list[int]] = {}
    for keys, value in _walk(tree, (), is_tensor):
        path = tuple(map(str, keys))
        name = "/".join(path[:-1] if len(path) > 1 and path[-1] == _VARIABLE and is_tensor(value) else path)
        if name in flat.leaves or (name in flat.extras and value != []):
            raise InputError(f"{where}: two leaves are both named '{shown(name)}'; rename one of them.")
        if is_tensor(value):
            flat.leaves[name] = value
        elif representable(value):
            flat.extras[name] = value
        else:
            raise InputError(f"{where}: '{shown(name)}' is a {type(value).__name__}, which last cannot carry.")
        if tuple(name.split("/")) != path:
            paths[name] = list(path)
        if any(type(key) is int for key in keys):
            integers[name] = [depth for depth, key in enumerate(keys) if type(key) is int]
    found = {"paths": paths, "integers": integers}
    if paths or integers:
        flat.extras[STRUCTURE_KEY] = {part: value for part, value in found.items() if value}
    return flat


def arranged(
    sources: tuple[TensorSource, ...], extras: dict[str, Any]
) -> tuple[tuple[TensorSource, ...], dict[str, Any]]:
    """Sources and extras with the names that `flatten` gives what `build` makes of them.

    A name that ends as the variables of flax.nnx do is that of one: it is shown without its end.
    """
    names = {source.info.name: _as_read_back(source.info.name, extras) for source in sources}
    new = {old: name for old, name in names.items() if name != old and name not in names}
    if not new:
        return sources, extras
    form = dict(structure.of(extras))
    form["paths"] = form.get("paths", {}) | {new[old]: list(map(str, path_of(old, extras))) for old in new}
    form["integers"] = {new.get(name, name): depths for name, depths in form.get("integers", {}).items()}
    renamed = tuple(
        replace(source, info=replace(source.info, name=new.get(source.info.name, source.info.name)))
        for source in sources
    )
    return renamed, {**extras, STRUCTURE_KEY: {part: value for part, value in form.items() if value}}


def _as_read_back(name: str, extras: Mapping[str, Any]) -> str:
    path = path_of(name, extras)
    return "/".join(map(str, path[:-1])) if len(path) > 1 and path[-1] == _VARIABLE else name


def is_extra(name: str) -> bool:
    """Whether an extras key is a leaf of the tree, rather than one of the reserved keys."""
    return not name.startswith("last.")


def path_of(name: str, extras: Mapping[str, Any]) -> tuple[Any, ...]:
    """The keys that lead to a name: as recorded under the structure key, else the name split at "/"."""
    form = structure.of(extras)
    path = form.get("paths", {}).get(name) or name.split("/")
    numbers = form.get("integers", {}).get(name, ())
    return tuple(_as_number(key) if depth in numbers else key for depth, key in enumerate(path))


def build(leaves: Mapping[str, Any], extras: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The tree of flat names; the inverse of `flatten`.

    Raises:
        OutputError: one name is a branch of another, so that no tree can hold both.
    """
    root: dict[Any, Any] = {}
    lists: list[tuple[Any, ...]] = []
    for name, value in [*leaves.items(), *((key, value) for key, value in extras.items() if is_extra(key))]:
        path = path_of(name, extras)
        if name not in leaves and value == [] and type(value) is list:
            lists.append(path)
            continue
        _insert(root, path, {} if type(value) is dict and not value else value, where)
    for path in sorted(lists, key=len, reverse=True):
        _make_list(root, path, where)
    return root


def _as_number(key: str) -> int | str:
    digits = key.removeprefix("-")
    return int(key) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else key


def _walk(value: Any, path: tuple[Any, ...], is_tensor: Callable[[Any], bool]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict) and (value or not path):
        for key, item in value.items():
            yield from _walk(item, (*path, key), is_tensor)
    elif isinstance(value, list) and (_contains_tensor(value, is_tensor) or not representable(value)):
        yield path, []
        for index, item in enumerate(value):
            yield from _walk(item, (*path, str(index)), is_tensor)
    else:
        yield path, value


def _contains_tensor(value: Any, is_tensor: Callable[[Any], bool]) -> bool:
    if isinstance(value, dict):
        return any(_contains_tensor(item, is_tensor) for item in value.values())
    if isinstance(value, list):
        return any(_contains_tensor(item, is_tensor) for item in value)
    return is_tensor(value)


def _insert(root: dict[Any, Any], path: tuple[Any, ...], value: Any, where: str) -> None:
    node = root
    for part in path[:-1]:
        node = node.setdefault(part, {})
        if type(node) is not dict:
            raise OutputError(_conflict(path, where))
    existing = node.get(path[-1])
    if type(existing) is dict and type(value) is dict and not value:
        return
    if path[-1] in node and not (type(existing) is dict and not existing and type(value) is dict):
        raise OutputError(_conflict(path, where))
    node[path[-1]] = value


def _conflict(path: tuple[Any, ...], where: str) -> str:
    name = shown("/".join(map(str, path)))
    return (
        f"{where}: '{name}' cannot be stored beside a leaf that is a branch of it; write a .safetensors file instead."
    )


def _make_list(root: dict[Any, Any], path: tuple[Any, ...], where: str) -> None:
    parent: Any = root
    for part in path[:-1]:
        parent = parent.setdefault(part, {})
        if type(parent) is not dict:
            raise OutputError(_conflict(path, where))
    node = parent.get(path[-1], {})
    if type(node) is dict and sorted(map(str, node), key=_number) == [str(index) for index in range(len(node))]:
        parent[path[-1]] = [node[str(index)] for index in range(len(node))]


def _number(key: str) -> int:
    return int(key) if key.isdecimal() and len(key) < 10 else -1
