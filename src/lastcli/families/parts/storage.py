"""Arrays as a checkpoint stores them: kept states gathered bit for bit, computed values cast with a check.

A complex tensor is stored as native complex numbers, as a real one with a last axis of (real, imaginary), or as two
tensors `NAME_re` and `NAME_im`. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Read

__all__ = ["as_complex", "gather", "join_pair", "pad_states", "read_complex", "store", "write_complex"]


def join_pair(values: Any) -> Any:
    """(..., 2) real and imaginary parts → (...) complex, NumPy or JAX, in the precision given."""
    values = values.astype(np.result_type(values.dtype, np.complex64))
    return values[..., 0] + 1j * values[..., 1]


def as_complex(array: np.ndarray) -> np.ndarray:
    """complex128 from a native complex array, or from one whose last axis is (real, imaginary)."""
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    return join_pair(array.astype(np.float64))


def read_complex(names: Mapping[str, str], key: str, read: Read) -> np.ndarray:
    """A tensor stored as `key` (complex, or real with a last axis of 2) or as `key`_re and `key`_im, in complex128."""
    if key in names:
        return as_complex(read(names[key]))
    return read(names[f"{key}_re"]).astype(np.float64) + 1j * read(names[f"{key}_im"]).astype(np.float64)


def store(values: np.ndarray, like: np.ndarray, name: str) -> np.ndarray:
    """Computed values as the tensor `name` holds them: contiguous, in the dtype of `like`.

    Complex values become (real, imaginary) on a last axis where that dtype is real.

    Raises:
        UnsupportedModelError: the dtype cannot hold them (float16 ends at 65504), or they are not finite.
    """
    values = np.asarray(values)
    if np.iscomplexobj(values) and like.dtype.kind != "c":
        values = np.stack([values.real, values.imag], axis=-1)
    with np.errstate(over="ignore", invalid="ignore"):
        stored = values.astype(like.dtype, order="C")
    if not np.isfinite(stored.astype(np.complex128)).all():
        raise UnsupportedModelError(
            f"{name}: the new values do not fit into {like.dtype.name}; use a method that keeps the poles with "
            "--refit none, or convert the checkpoint to float32 first."
        )
    return stored


def write_complex(names: Mapping[str, str], key: str, read: Read, values: np.ndarray) -> dict[str, np.ndarray]:
    """{tensor name: array} of complex values in the form and dtype of the tensors they replace; as `store`."""
    if key in names:
        return {names[key]: store(values, read(names[key]), names[key])}
    parts = {names[f"{key}_re"]: values.real, names[f"{key}_im"]: values.imag}
    return {name: store(part, read(name), name) for name, part in parts.items()}


def gather(
    array: np.ndarray,
    kept: np.ndarray,
    size: int,
    *,
    state: int,
    group: int | None = None,
    blocks: int = 1,
    fill: complex = 0.0,
) -> np.ndarray:
    """The kept states of a stored tensor, the same bits, in the order of `kept`; the rest up to `size` is `fill`.

    Args:
        array: the stored tensor, of any dtype.
        kept: (sets, K). Group g takes the states of set g % sets.
        size: states afterwards, at least K.
        state: the state axis.
        group: the group axis; None where all groups share one copy (then there is one set).
        blocks: how many blocks of all states the state axis holds one after the other (two in S5's joint C).
        fill: the value of inert states.
    """
    if blocks > 1:
        apart = array.reshape(*array.shape[:state], blocks, -1, *array.shape[state + 1 :])
        taken = gather(apart, kept, size, state=state + 1, group=group, fill=fill)
        return taken.reshape(*array.shape[:state], blocks * size, *array.shape[state + 1 :])
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


def pad_states(values: np.ndarray, size: int, fill: float = 0.0, *, axis: int = -1) -> np.ndarray:
    """Computed values with the state axis filled up to `size`."""
    pad = [(0, 0)] * values.ndim
    pad[axis] = (0, size - values.shape[axis])
    return np.pad(values, pad, constant_values=fill)
