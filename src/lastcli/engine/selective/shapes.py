"""Kept states cut out of a selective layer, and a reduced one put back in the original's shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from lastcli.engine.deferred import picked
from lastcli.engine.embedding import first_slots
from lastcli.engine.protocol import Reduction
from lastcli.engine.selective.system import S6HeadsSystem, S6System, SelectiveSystem

__all__ = ["ROWS", "as_precision", "embed", "inert", "truncate"]

# Fields of S6 with one row a state, and those of SSD with (sets, N) first.
ROWS = ("to_B", "to_C")
BLOCKS = (
    "to_B",
    "to_C",
    "B_bias",
    "C_bias",
    "conv_B",
    "conv_C",
    "conv_B_bias",
    "conv_C_bias",
)


def truncate(system: SelectiveSystem, kept: np.ndarray) -> Reduction:
    """The kept states (sets, K) as they are; changed = "none"."""
    kept = np.asarray(kept)
    if isinstance(system, S6System):
        new: dict[str, Any] = {name: picked(getattr(system, name), (kept[0],)) for name in (*ROWS, "B_norm", "C_norm")}
        new["A"] = picked(system.A, (slice(None), kept[0]))
    elif isinstance(system, S6HeadsSystem):
        rows = np.arange(system.sets)[:, None]
        new = {name: picked(getattr(system, name), (rows, kept)) for name in ROWS}
        channels = np.arange(system.A.shape[1])[None, :, None]
        new["A"] = picked(system.A, (rows[:, :, None], channels, kept[:, None]))
    else:
        rows = np.arange(system.sets)[:, None]
        new = {name: picked(getattr(system, name), (rows, kept)) for name in BLOCKS}
    return Reduction(kept, system.replace(**new))


def embed(original: SelectiveSystem, reduction: Reduction, states: int | None = None) -> Any:
    """The reduced system in the shapes of the original; the other states have B = C = 0 and do nothing.

    With `states`, in shapes of so many states instead, the kept ones first.

    Where norms couple the states, an inert one still counts among those whose mean square is taken; the weights of the
    norms make up for it.
    """
    reduced, kept = reduction.system, np.asarray(reduction.kept if states is None else first_slots(reduction.kept))
    N, K = states or original.states, kept.shape[1]
    if isinstance(original, S6System):
        new: dict[str, Any] = {name: _spread_rows(getattr(reduced, name), kept[0], N) for name in ROWS}
        new["A"] = _spread_rows(np.asarray(reduced.A).T, kept[0], N, fill=-1.0).T
        for name in ("B_norm", "C_norm"):
            weight = getattr(reduced, name)
            new[name] = None if weight is None else _spread_rows(weight * np.sqrt(K / N), kept[0], N)
        return reduced.replace(**new)
    rows = np.arange(original.sets)[:, None]
    new = {}
    if isinstance(original, S6HeadsSystem):
        for name in ROWS:
            new[name] = np.zeros(np.shape(getattr(original, name)))
            new[name][rows, kept] = getattr(reduced, name)
        new["A"] = np.full(np.shape(original.A), -1.0)
        np.put_along_axis(new["A"], kept[:, None], np.asarray(reduced.A), axis=2)
        return reduced.replace(**new)
    for name in BLOCKS:
        small = getattr(reduced, name)
        new[name] = None if small is None else np.zeros((original.sets, N, *np.shape(small)[2:]))
        if small is not None:
            new[name][rows, kept] = small
    return reduced.replace(**new)


def _spread_rows(rows: Any, kept: np.ndarray, N: int, fill: float = 0.0) -> np.ndarray:
    rows = np.asarray(rows)
    whole = np.full((N, *rows.shape[1:]), fill)
    whole[kept] = rows
    return whole


def as_precision(system: SelectiveSystem, real: Any) -> Any:
    """The arrays in the dtype `real`."""
    arrays = {
        name: np.asarray(value, real) for name, value in vars(system).items() if hasattr(value, "shape") and value.shape
    }
    return system.replace(**arrays)


def inert(system: Any) -> np.ndarray:
    """States whose B or C is always zero, (sets, N) bool."""
    sets, N = system.sets, system.states

    def silent(names: tuple[str, ...]) -> np.ndarray:
        found = np.ones((sets, N), bool)
        for name in names:
            array = getattr(system, name, None)
            if array is not None:
                found &= ~np.asarray(array).reshape(sets, N, -1).any(axis=2)
        return found

    if isinstance(system, (S6System, S6HeadsSystem)):
        return silent(("to_B",)) | silent(("to_C",))
    # a row of the projection may be anything where its taps and their bias are zero
    return (silent(("conv_B", "conv_B_bias")) | silent(("to_B", "B_bias", "conv_B_bias"))) | (
        silent(("conv_C", "conv_C_bias")) | silent(("to_C", "C_bias", "conv_C_bias"))
    )
