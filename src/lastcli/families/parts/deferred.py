"""Large arrays of a file that are read when somebody computes with them, so that a model need not lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lastcli.families.base import Layer, Read

__all__ = ["LARGE", "deferred", "deferred_parts"]

LARGE = 2**16
"""Arrays of more bytes are deferred."""


def deferred(read: Read, layer: Layer, role: str, made: Callable[[np.ndarray], np.ndarray]) -> Any:
    """`made` of a tensor of a layer: as an array, or if it is large deferred (`engine.deferred`) and not read now.

    Args:
        role: of the tensor, one of `layer.infos`.
        made: of the stored array, what is computed with; its shape and dtype follow from those of the stored one.
    """
    return deferred_parts(read, layer, role, {"": made})[""]


def deferred_parts(
    read: Read, layer: Layer, role: str, made: Mapping[Any, Callable[[np.ndarray], np.ndarray]]
) -> dict[Any, Any]:
    """Several arrays that are made of one tensor, by the same keys, each as `deferred`; it is read once for all."""
    from lastcli.engine.deferred import Deferred

    name, blank = layer.tensors[role], layer.infos[role].blank
    found: dict[Any, Any] = {}
    whole: np.ndarray | None = None
    for key, make in made.items():
        form = make(blank)
        if form.nbytes > LARGE:
            found[key] = Deferred(form.shape, form.dtype, lambda make=make: make(read(name)))  # type: ignore[misc]
            continue
        whole = read(name) if whole is None else whole
        array = make(whole)
        # a view would keep the whole tensor in memory
        found[key] = array.copy() if array.base is not None else array
    return found
