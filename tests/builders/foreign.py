"""Objects of programs that need not be installed: a class under the name that a pickle gives it."""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

__all__ = ["foreign", "importable", "omegaconf"]


@functools.cache
def _class(kind: str) -> type:
    module, _, name = kind.rpartition(".")
    return type(name, (), {"__module__": module})


def foreign(kind: str, state: Any = None) -> Any:
    """An object of the class `module.Name` with these fields."""
    made: Any = _class(kind)()
    if state is not None:
        made.__dict__.update(state)
    return made


@contextlib.contextmanager
def importable(*objects: Any) -> Iterator[None]:
    """While the classes of these objects can be imported, as pickling asks for."""
    before = dict(sys.modules)
    try:
        for made in objects:
            kind = type(made)
            parts = kind.__module__.split(".")
            for end in range(1, len(parts) + 1):
                name = ".".join(parts[:end])
                sys.modules.setdefault(name, types.ModuleType(name))
            setattr(sys.modules[kind.__module__], kind.__name__, kind)
        yield
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


def omegaconf(tree: Any) -> tuple[Any, list[Any]]:
    """A DictConfig as OmegaConf pickles one, every node knowing its parent, and all objects in it."""
    if not isinstance(tree, dict):
        node = foreign("omegaconf.nodes.AnyNode", {"_val": tree, "_parent": None})
        return node, [node]
    made = foreign("omegaconf.dictconfig.DictConfig", {"_parent": None, "_content": {}})
    objects = [made]
    for key, value in tree.items():
        child, below = omegaconf(value)
        child._parent = made
        made._content[key] = child
        objects += below
    return made, objects
