"""What the multi-SISO families (S4D, S4, DSS and their relatives) share: names, gathers, complex storage, transforms.

A multi-SISO layer is H independent systems with one input each. Its tensors carry a state axis and mostly a group
axis; every group keeps its own states, so compacting is a gather for each group. NumPy only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from lastcli.containers.base import TensorInfo
from lastcli.errors import UnsupportedModelError

__all__ = [
    "TRANSFORMS",
    "as_complex",
    "expect_shape",
    "feedthrough_of",
    "in_running_order",
    "inverse_transform",
    "owner",
    "select",
    "store_complex",
    "store_feedthrough",
    "store_real",
    "transform",
    "two_axes",
]

# An inert state still needs a stable pole: exp(-dt/2), where S4D starts its own.
INERT_DECAY = 0.5

TRANSFORMS = ("exp", "softplus", "none", "relu", "sigmoid")

_TINY = 1e-12


def owner(prefix: str) -> str:
    """The prefix of the layer that owns the kernel at `prefix`: without its `kernel.` levels."""
    return re.sub(r"(?:(?<![^./])kernel[./])+$", "", prefix)


def in_running_order(names: Iterable[str]) -> list[str]:
    """Names sorted with their numbers as numbers: layer 10 comes after layer 2."""

    def key(name: str) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]

    return sorted(names, key=key)


def expect_shape(info: TensorInfo, *shapes: tuple[int, ...]) -> None:
    """Refuse a tensor whose shape is none of `shapes`.

    Raises:
        UnsupportedModelError: names the tensor, its shape and what was expected.
    """
    if tuple(info.shape) not in shapes:
        wanted = " or ".join(str(shape) for shape in dict.fromkeys(shapes))
        raise UnsupportedModelError(f"Tensor {info.name} has shape {tuple(info.shape)}; expected {wanted}.")


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


def as_complex(array: np.ndarray) -> np.ndarray:
    """complex128 from a native complex array, or from one whose last axis is (real, imaginary)."""
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    wide = array.astype(np.float64)
    return wide[..., 0] + 1j * wide[..., 1]


def store_complex(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Complex values in the storage and dtype of `like`: native complex, or (real, imaginary) on a last axis."""
    if like.dtype.kind == "c":
        return values.astype(like.dtype, order="C")
    return np.stack([values.real, values.imag], axis=-1).astype(like.dtype, order="C")


def store_real(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Real values, contiguous, in the dtype of `like`."""
    return values.astype(like.dtype, order="C")


def select(
    array: np.ndarray, kept: np.ndarray, size: int, *, state: int, group: int | None = None, fill: float = 0.0
) -> np.ndarray:
    """The kept states of a tensor, the same bits, in the order of `kept`; the rest up to `size` is `fill`.

    Args:
        array: the stored tensor.
        kept: (sets, K). Group g takes the states of set g % sets.
        size: length of the new state axis, at least K.
        state: the state axis.
        group: the group axis; None where all groups share one copy (then there is one set).
        fill: the value of inert states.
    """
    if group is None:
        part = np.take(array, kept[0], axis=state)
    else:
        moved = np.moveaxis(array, (group, state), (0, 1))
        index = kept[np.arange(moved.shape[0]) % kept.shape[0]]
        rows = np.arange(moved.shape[0])[:, None]
        part = np.moveaxis(moved[rows, index], (0, 1), (group, state))
    if size > part.shape[state]:
        shape = list(part.shape)
        shape[state] = size - part.shape[state]
        part = np.concatenate([part, np.full(shape, fill, dtype=array.dtype)], axis=state)
    return np.ascontiguousarray(part)


def feedthrough_of(array: np.ndarray | None, groups: int) -> np.ndarray | None:
    """D (G, p, 1) from a stored (p, G), (G,) or absent tensor."""
    if array is None:
        return None
    return array.astype(np.float64).reshape(-1, groups).T[..., None]


def store_feedthrough(D: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A stored (p, G) or (G,) tensor from D (G, p, 1)."""
    return store_real(D[..., 0].T.reshape(like.shape), like)


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
