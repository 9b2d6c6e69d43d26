"""True lengths from a mask of steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from lastcli.errors import InputError

__all__ = ["lengths_of"]


def lengths_of(mask: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """(n,) or (n, 2) lengths from 1 for true steps and 0 for the padding behind them.

    Args:
        mask: (n, L), or (n, 2, L) for two sequences side by side.
        shape: of x, for the comparison.
        where: for messages.

    Raises:
        InputError: another shape, other numbers, or padding before or between true steps; the first such example.
    """
    mask = np.asarray(mask)
    if mask.shape not in (shape, shape[:-1]) or mask.ndim < 2:
        raise InputError(f"{where}: mask has shape {mask.shape}; one entry for every step of x {shape} is needed.")
    known = (mask == 0) | (mask == 1)
    if not known.all():
        at = tuple(int(i) for i in np.argwhere(~known)[0])
        raise InputError(
            f"{where}: mask holds {mask[at]} at example {at[0]}; 1 for a step and 0 for padding is needed."
        )
    lengths = mask.sum(axis=-1).astype(np.int64)
    wrong = (mask != (np.arange(mask.shape[-1]) < lengths[..., None])).any(axis=-1)
    if wrong.any():
        example = int(np.argwhere(wrong)[0][0])
        raise InputError(
            f"{where}: the mask of example {example} has padding before or between its steps; only padding behind them "
            "can be left out."
        )
    return lengths
