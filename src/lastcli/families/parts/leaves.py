"""Tensor names split into a layer's path and a leaf, and complex tensors in the forms checkpoints store them.

Flax, equinox and torch join the parts of a path by "/" or "."; the leaf is what follows the last of either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from lastcli.families.base import Read, Tensors
from lastcli.families.parts.multi_siso import as_complex, in_running_order, store_complex

__all__ = ["canonical", "gather", "groups", "layer_name", "read_complex", "split", "write_complex"]

# The moments of an optimizer carry the names of the tensors they belong to.
_OPTIMIZERS = {"opt_state", "optimizer", "optimizer_state_dict"}


def canonical(name: str) -> str:
    """A tensor name or layer path with "/" between its parts, however the container joins them."""
    return "/".join(part for part in re.split(r"[/.]", name) if part)


def split(name: str) -> tuple[str, str]:
    """(path with its last separator, leaf) of a tensor name."""
    cut = max(name.rfind("/"), name.rfind(".")) + 1
    return name[:cut], name[cut:]


def layer_name(prefix: str) -> str:
    """A path as it is shown: without the last separator; a layer at the top of the file is called "layer"."""
    return prefix.rstrip("/.") or "layer"


def groups(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{path: {leaf: full name}} of every tensor that is not an optimizer's, numbered paths in numeric order."""
    found: dict[str, dict[str, str]] = {}
    for name in tensors:
        if _OPTIMIZERS.isdisjoint(canonical(name).split("/")):
            prefix, leaf = split(name)
            found.setdefault(prefix, {})[leaf] = name
    return {prefix: found[prefix] for prefix in in_running_order(found)}


def gather(array: np.ndarray, kept: Sequence[int] | np.ndarray, axis: int, size: int) -> np.ndarray:
    """The kept slices along `axis`, bit for bit, followed by zeros up to `size`."""
    taken = np.take(array, np.asarray(kept, dtype=np.int64), axis=axis)
    if size > taken.shape[axis]:
        shape = list(taken.shape)
        shape[axis] = size - taken.shape[axis]
        taken = np.concatenate([taken, np.zeros(shape, taken.dtype)], axis=axis)
    return np.ascontiguousarray(taken)


def read_complex(names: Mapping[str, str], key: str, read: Read) -> np.ndarray:
    """A tensor stored as `key` (complex, or real with a last axis of 2) or as `key`_re and `key`_im, in complex128."""
    if key in names:
        return as_complex(read(names[key]))
    return read(names[f"{key}_re"]).astype(np.float64) + 1j * read(names[f"{key}_im"]).astype(np.float64)


def write_complex(names: Mapping[str, str], key: str, read: Read, value: np.ndarray) -> dict[str, np.ndarray]:
    """{tensor name: array} of a complex value in the form and dtype of the tensors it replaces."""
    if key in names:
        return {names[key]: store_complex(value, read(names[key]))}
    parts = {f"{key}_re": value.real, f"{key}_im": value.imag}
    return {names[part]: np.ascontiguousarray(values.astype(read(names[part]).dtype)) for part, values in parts.items()}
