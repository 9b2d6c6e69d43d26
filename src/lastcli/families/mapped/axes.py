"""The axes of a part as a map says them: which of the file's each one is, or a new axis of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lastcli.errors import InputError, UnsupportedModelError

__all__ = ["arranged", "arranged_shape", "parse_axes", "restored"]

Axes = tuple[int | None, ...]


def parse_axes(said: Any, where: str) -> Axes:
    """`[1, 0]`: the family's first axis is the file's second; `null` is a new axis of one.

    Raises:
        InputError: it is no list of different axis numbers.
    """
    wanted = "a list such as [1, 0]: the file's axes in the order of the family's, null for a new axis of one"
    if not isinstance(said, Sequence) or isinstance(said, str) or len(said) > 16:
        raise InputError(f"{where} must be {wanted}.")
    if not all(axis is None or (type(axis) is int and 0 <= axis < 16) for axis in said):
        raise InputError(f"{where} must be {wanted}.")
    numbers = [axis for axis in said if axis is not None]
    if len(set(numbers)) != len(numbers):
        raise InputError(f"{where} names an axis twice; it must be {wanted}.")
    return tuple(said)


def arranged_shape(shape: tuple[int, ...], axes: Axes, what: str) -> tuple[int, ...]:
    """The shape as the family sees it.

    Raises:
        UnsupportedModelError: an axis is not there, or one that is left out is longer than one.
    """
    for axis in axes:
        if axis is not None and axis >= len(shape):
            raise UnsupportedModelError(
                f"The map gives {what} the axes {_shown(axes)}, but the tensor's shape is {shape}; correct the map."
            )
    for axis, length in enumerate(shape):
        if axis not in axes and length != 1:
            raise UnsupportedModelError(
                f"The map leaves out axis {axis} of {what}, which has {length} entries (shape {shape}); only an axis "
                "of one can go."
            )
    return tuple(1 if axis is None else shape[axis] for axis in axes)


def arranged(values: Any, axes: Axes) -> Any:
    """The numbers as the family sees them; NumPy or JAX arrays."""
    kept = [axis for axis in axes if axis is not None]
    left_out = [axis for axis in range(values.ndim) if axis not in kept]
    values = values.transpose(kept + left_out)
    values = values.reshape(values.shape[: len(kept)])
    return values.reshape(tuple(1 if axis is None else values.shape[kept.index(axis)] for axis in axes))


def restored(values: np.ndarray, axes: Axes, rank: int) -> np.ndarray:
    """The inverse of `arranged` for numbers of any size, for a tensor of `rank` axes."""
    kept = [axis for axis in axes if axis is not None]
    values = values.reshape([n for n, axis in zip(values.shape, axes) if axis is not None])
    values = values.transpose([kept.index(axis) for axis in sorted(kept)])
    return np.expand_dims(values, [axis for axis in range(rank) if axis not in kept])


def _shown(axes: Axes) -> str:
    return "[" + ", ".join("null" if axis is None else str(axis) for axis in axes) + "]"
