"""Large arrays of a file that are read when somebody computes with them, so that a model need not lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lastcli.families.base import Read

__all__ = ["LARGE", "deferred", "deferred_parts"]

LARGE = 2**16
"""Arrays of more bytes are deferred."""


def deferred(read: Read, name: str, made: Callable[[np.ndarray], np.ndarray]) -> Any:
    """`made` of a tensor: as an array, or if it is large deferred (`engine.deferred`). It is read once for its shape.

    Args:
        made: of the stored array, what is computed with.
    """
    return deferred_parts(read, name, {"": made})[""]


def deferred_parts(read: Read, name: str, made: Mapping[Any, Callable[[np.ndarray], np.ndarray]]) -> dict[Any, Any]:
    """Several arrays that are made of one tensor, by the same keys, each as `deferred`; it is read once for all."""
    from lastcli.engine.deferred import Deferred

    whole = read(name)
    found: dict[Any, Any] = {}
    for key, make in made.items():
        array = make(whole)
        if array.nbytes > LARGE:
            found[key] = Deferred(array.shape, array.dtype, lambda make=make: make(read(name)))  # type: ignore[misc]
        else:
            # a view would keep the whole tensor in memory
            found[key] = array.copy() if array.base is not None else array
    return found
