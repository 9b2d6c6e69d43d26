"""`--like`: the module that an equinox file was saved from, from the user's own code, for the names of its leaves."""

from __future__ import annotations

from typing import Any

import numpy as np

from lastcli.containers.base import TensorInfo
from lastcli.errors import UsageError
from lastcli.evaluation.user_code import load_function

__all__ = ["load_skeleton"]


def load_skeleton(spec: str) -> tuple[TensorInfo, ...]:
    """Name, shape and dtype of every leaf that `equinox.tree_serialise_leaves` saves, in its order.

    A name is the path of the leaf in the module, its parts joined by "/". The function takes nothing and gives the
    module, with arrays or, as `equinox.filter_eval_shape` makes it, with their shapes only.

    Raises:
        UsageError: the function cannot be loaded, fails, or gives nothing that has leaves.
    """
    import jax

    function = load_function(spec, "--like")
    try:
        module = function()
        leaves, _ = jax.tree_util.tree_flatten_with_path(module)
    except Exception as error:  # the border to foreign code: whatever it raises is the user's to see
        raise UsageError(f"--like {spec} failed: {type(error).__name__}: {error}") from error
    found = tuple(_info(path, leaf) for path, leaf in leaves if _is_saved(leaf))
    if not found:
        raise UsageError(
            f"--like {spec} gives a {type(module).__name__} without arrays; give the module that was saved."
        )
    return found


def _is_saved(leaf: Any) -> bool:
    """Arrays, their shapes, and numbers; functions, text and the like are passed over."""
    return isinstance(leaf, bool | int | float | complex) or (hasattr(leaf, "shape") and hasattr(leaf, "dtype"))


def _info(path: tuple[Any, ...], leaf: Any) -> TensorInfo:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    shape = tuple(array.shape)
    size = int(np.prod(shape, dtype=object)) if shape else 1
    name = "/".join(_key(key) for key in path) or "leaf"
    return TensorInfo(name, shape, str(array.dtype), size * array.dtype.itemsize)


def _key(key: Any) -> str:
    """A step of a path: a field, a key or a place."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
