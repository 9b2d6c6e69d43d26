"""Names for the leaves of an equinox file, which has none, where shapes alone tell the family.

A layer's arrays stand together, in the order of the fields of its class:

- S5: `Lambda_re`, `Lambda_im` (P,), `B` (P, H, 2), `C` (H, P, 2), `D` (H,), `log_step` (P, 1)
- LinOSS: `A_diag` (P,), `B` (P, H, 2), `C` (H, P, 2), `D` (H,), `steps` (P,)
- LRU: `nu_log`, `theta_log` (P,), `B_re`, `B_im` (P, H), `C_re`, `C_im` (H, P), `gamma_log` (P,), `D` (H,), P ≠ H

Numbers of Python between them, such as sizes, do not disturb the order; H and P as numbers after a layer's arrays are
named too, for P changes with the layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lastcli.containers.base import TensorInfo

__all__ = ["names_by_shape"]

_Fields = tuple[tuple[str, tuple[str | int, ...]], ...]

_LAYERS: tuple[_Fields, ...] = (
    (
        ("Lambda_re", ("P",)),
        ("Lambda_im", ("P",)),
        ("B", ("P", "H", 2)),
        ("C", ("H", "P", 2)),
        ("D", ("H",)),
        ("log_step", ("P", 1)),
    ),
    (("A_diag", ("P",)), ("B", ("P", "H", 2)), ("C", ("H", "P", 2)), ("D", ("H",)), ("steps", ("P",))),
    (
        ("nu_log", ("P",)),
        ("theta_log", ("P",)),
        ("B_re", ("P", "H")),
        ("B_im", ("P", "H")),
        ("C_re", ("H", "P")),
        ("C_im", ("H", "P")),
        ("gamma_log", ("P",)),
        ("D", ("H",)),
    ),
)


def names_by_shape(leaves: Sequence[TensorInfo], numbers: Mapping[str, Any]) -> list[str] | None:
    """A name for every leaf, those of the layers below `layers/{i}`; None where no family is clear.

    Args:
        leaves: in the order of the file.
        numbers: those of them that are numbers of Python, by name.
    """
    arrays = [index for index, leaf in enumerate(leaves) if leaf.name not in numbers]
    found = {fields: _windows(leaves, arrays, fields) for fields in _LAYERS}
    families = [fields for fields, windows in found.items() if windows]
    if len(families) != 1:
        return None
    (fields,) = families
    names = [f"leaves/{index}" for index in range(len(leaves))]
    for layer, (places, sizes) in enumerate(found[fields]):
        for (field, _), at in zip(fields, places, strict=True):
            names[at] = f"layers/{layer}/{field}"
        for field, at in _sizes_after(leaves, numbers, places[-1], sizes):
            names[at] = f"layers/{layer}/{field}"
    return names


def _windows(
    leaves: Sequence[TensorInfo], arrays: Sequence[int], fields: _Fields
) -> list[tuple[list[int], dict[str, int]]]:
    """The places of every layer's arrays, and its sizes; no two layers share an array."""
    found: list[tuple[list[int], dict[str, int]]] = []
    start = 0
    while start + len(fields) <= len(arrays):
        places = list(arrays[start : start + len(fields)])
        sizes = _sizes([leaves[at] for at in places], fields)
        if sizes is None:
            start += 1
        else:
            found.append((places, sizes))
            start += len(fields)
    return found


def _sizes(window: Sequence[TensorInfo], fields: _Fields) -> dict[str, int] | None:
    """What the letters in the shapes stand for, or None where they do not fit."""
    sizes: dict[str, int] = {}
    for leaf, (_, wanted) in zip(window, fields, strict=True):
        if len(leaf.shape) != len(wanted) or not leaf.dtype.startswith(("float", "bfloat")):
            return None
        for axis, size in zip(wanted, leaf.shape):
            if size != (axis if isinstance(axis, int) else sizes.setdefault(axis, size)):
                return None
    square = all(len(wanted) < 3 for _, wanted in fields) and sizes["P"] == sizes["H"]
    return None if square or 0 in sizes.values() else sizes


def _sizes_after(
    leaves: Sequence[TensorInfo], numbers: Mapping[str, Any], last: int, sizes: Mapping[str, int]
) -> list[tuple[str, int]]:
    """The places of H and P, where they are the two whole numbers that follow a layer's arrays."""
    after = leaves[last + 1 : last + 3]
    values = [numbers.get(leaf.name) for leaf in after]
    if [type(value) for value in values] == [int, int] and values == [sizes["H"], sizes["P"]]:
        return [("H", last + 1), ("P", last + 2)]
    return []
