"""What the multi-SISO families (S4D, S4, DSS and their relatives) share: owners, D, transforms.

A multi-SISO layer is H independent systems with one input each. Its tensors carry a state axis and mostly a group
axis; every group keeps its own states, so compacting is a gather for each group. NumPy only.
"""

from __future__ import annotations

import re

import numpy as np

from lastcli.containers.base import TensorInfo
from lastcli.errors import UnsupportedModelError
from lastcli.families.parts.leaves import layer_name
from lastcli.families.parts.storage import store

__all__ = [
    "TRANSFORMS",
    "feedthrough_of",
    "inverse_transform",
    "layer_of",
    "owner",
    "store_feedthrough",
    "transform",
    "two_axes",
]

# An inert state still needs a stable pole: exp(-dt/2), where S4D starts its own.
INERT_DECAY = 0.5

TRANSFORMS = ("exp", "softplus", "none", "relu", "sigmoid")

_TINY = 1e-12


def owner(prefix: str) -> str:
    """The prefix of the layer that owns the kernel at `prefix`: without its `kernel.` levels, and S4 V0's `krylov.`."""
    return re.sub(r"(?<![^./])(?:kernel[./])+(?:krylov[./])?$", "", prefix)


def layer_of(prefix: str) -> str:
    """The name of the layer that owns the kernel at `prefix`."""
    return layer_name(owner(prefix))


def two_axes(info: TensorInfo) -> tuple[int, int]:
    """The two lengths of a (groups, states) tensor.

    Raises:
        UnsupportedModelError: it has another number of axes, or an empty one.
    """
    if len(info.shape) != 2 or 0 in info.shape:
        raise UnsupportedModelError(
            f"Tensor {info.name} has shape {tuple(info.shape)}; expected two axes (channels, states), none empty."
        )
    return info.shape[0], info.shape[1]


def feedthrough_of(array: np.ndarray | None, groups: int) -> np.ndarray | None:
    """D (G, p, 1) from a stored (p, G), (G,) or absent tensor."""
    if array is None:
        return None
    return array.astype(np.float64).reshape(-1, groups).T[..., None]


def store_feedthrough(D: np.ndarray, like: np.ndarray, name: str) -> np.ndarray:
    """The stored (p, G) or (G,) tensor `name` from D (G, p, 1)."""
    return store(D[..., 0].T.reshape(like.shape), like, name)


def transform(values: np.ndarray, kind: str) -> np.ndarray:
    """A positive quantity from its stored parameter, float64; `kind` is one of `TRANSFORMS`."""
    values = values.astype(np.float64)
    if kind == "exp":
        return np.exp(values)
    if kind == "softplus":
        return np.logaddexp(0.0, values)
    if kind == "relu":
        return np.maximum(values, 0.0)
    if kind == "sigmoid":
        return 1.0 / (1.0 + np.exp(-values))
    return values


def inverse_transform(values: np.ndarray, kind: str, what: str = "a parameter") -> np.ndarray:
    """The stored parameter of a quantity, the inverse of `transform`.

    Raises:
        UnsupportedModelError: the transform cannot produce the value (a sigmoid stays below 1).
    """
    if kind == "none":
        return values
    positive = np.maximum(values, _TINY)
    if kind == "exp":
        return np.log(positive)
    if kind == "relu":
        return positive
    if kind == "softplus":
        # log(e^v - 1), without overflow for large v.
        return positive + np.log(-np.expm1(-positive))
    if positive.max(initial=0.0) >= 1.0:
        raise UnsupportedModelError(
            f"The reduced layer needs {what} of {float(positive.max()):.3g}, which a sigmoid parameter cannot hold; "
            "use a method that keeps the poles, or convert the model to s4d first."
        )
    return np.log(positive) - np.log1p(-positive)
