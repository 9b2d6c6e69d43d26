"""Proving a change of family before it is written: the kernels of the new tensors, as stored, against the old ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Family, Read, Tensors
from lastcli.families.parts.stored_kernel import kernel_error, largest_error_allowed

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem

__all__ = ["proven_conversion"]


def proven_conversion(
    systems: Sequence[DiagonalSystem], family: Family, tensors: Tensors, config: Mapping[str, Any], read: Read
) -> tuple[float, float]:
    """The largest relative error of a kernel after storage, and the one that is allowed.

    Args:
        systems: the layers before.
        family: of the new tensors.
        tensors: the new checkpoint's.
        config: its description; what it leaves out has its default.
        read: gives a new tensor as it will be stored.

    Raises:
        UnsupportedModelError: a layer's kernel is another one; names it, the error and the tolerance.
    """
    from lastcli.engine.system import diagonal

    full = {option.key: option.default for option in family.options} | dict(config)
    worst = allowed = 0.0
    for layer, system in zip(family.layers(tensors, full), systems, strict=True):
        error = kernel_error(system, diagonal(family.system(layer, full, read)))
        dtype = next(np.asarray(read(name)).dtype for role, name in layer.tensors.items() if role in ("C", "W"))
        limit = largest_error_allowed(dtype)
        if not error <= limit:
            raise UnsupportedModelError(
                f"{layer.name}: stored as {family.name} in {dtype.name}, a kernel would differ by {100 * error:.2g}% "
                f"of its norm ({100 * limit:.2g}% is allowed), since terms far larger than their sum cancel in it; "
                "keep the model in its own form, or reduce it by a method with a refit on data (--method obs)."
            )
        worst, allowed = max(worst, error), max(allowed, limit)
    return worst, allowed
