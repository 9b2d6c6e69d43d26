"""Tensors of every dtype, and helpers to write and compare checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from lastcli import containers
from lastcli.containers import Reader, Receipt, TensorSource

__all__ = ["EXTRAS", "contents", "copy", "every_dtype", "put", "same_bits"]

EXTRAS: dict[str, Any] = {
    "step": 1234567890123,
    "best": 0.1,
    "never": float("nan"),
    "done": True,
    "note": "äöü [bold] \x1b[31m",
    "nothing": None,
    "empty": {},
    "rates": [0.1, 0.2],
    "cfg/width": 7,
}
"""Leaves that are not tensors, of every kind that containers meet."""


def every_dtype() -> dict[str, np.ndarray]:
    """Random bits in every dtype that all four containers hold, and odd shapes."""
    rng = np.random.default_rng(0)

    def bits(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype(dtype)
        return rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype).reshape(shape)

    return {
        "params/enc/kernel": bits("float32", (3, 4)),
        "params/enc/half": bits("float16", (5,)),
        "params/enc/brain": bits(ml_dtypes.bfloat16, (2, 3)),
        "params/seq/B": bits("complex64", (4, 2)),
        "params/seq/double": bits("float64", (3,)),
        "params/seq/scalar": bits("float32", ()),
        "params/ints/i8": bits("int8", (3,)),
        "params/ints/i16": bits("int16", (3,)),
        "params/ints/i32": bits("int32", (3,)),
        "params/ints/i64": bits("int64", (3,)),
        "params/ints/u8": bits("uint8", (7,)),
        "params/ints/u32": bits("uint32", (3,)),
        "params/empty": bits("float32", (0, 3)),
        "params/e4m3": bits(ml_dtypes.float8_e4m3fn, (3,)),
        "params/e5m2": bits(ml_dtypes.float8_e5m2, (3,)),
        "batch_stats/mask": np.array([True, False, True]),
    }


def put(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None, **more: Any
) -> Receipt:
    """Write arrays."""
    return containers.write(
        path, [TensorSource.of(name, array) for name, array in arrays.items()], metadata=metadata or {}, **more
    )


def copy(reader: Reader, path: Path, **more: Any) -> Receipt:
    """Write what a reader shows."""
    sources = [TensorSource.copied(reader, name) for name in reader.tensors]
    return containers.write(path, sources, metadata=reader.metadata, extras=reader.extras, **more)


def contents(path: Path, **options: Any) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint, held against its announcement."""
    with containers.open_reader(path, **options) as reader:
        arrays = {name: reader.read(name) for name in reader.tensors}
        for name, info in reader.tensors.items():
            assert (arrays[name].shape, arrays[name].dtype.name, arrays[name].nbytes) == (
                info.shape,
                info.dtype,
                info.nbytes,
            )
            assert arrays[name].flags.c_contiguous
    return arrays


def same_bits(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> None:
    """Assert equal names, shapes, dtypes and bytes."""
    assert set(left) == set(right)
    for name in left:
        assert left[name].shape == right[name].shape, name
        assert left[name].dtype == right[name].dtype, name
        assert left[name].tobytes() == right[name].tobytes(), name
