"""Which examples of a split are looked at: a range, or a number of them drawn with a seed."""

from __future__ import annotations

import numpy as np

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.locations import parse_rows

__all__ = ["drawn_rows", "rows_to_draw"]


def rows_to_draw(limit: str | None, seed: int | None) -> int | None:
    """How many examples a limit draws: `1000` with a seed draws 1000, without one it means the first 1000.

    Raises:
        UsageError: the limit cannot be read, or is a number below 1.
    """
    if limit is None or seed is None:
        return None
    rows = parse_rows(limit)
    if ":" in limit or rows.stop is None:
        return None  # a range says itself which examples are meant
    if rows.stop < 1:
        raise UsageError(f"{limit} examples cannot be drawn; write a number from 1 on.")
    return int(rows.stop)


def drawn_rows(n: int, count: int, y: np.ndarray | None, seed: int, name: str) -> np.ndarray:
    """`count` of `n` rows in ascending order, drawn without replacement.

    With classes, (n,) whole numbers, every class has its share to the nearest example (largest remainders); without
    them every row is as likely as any other.

    Raises:
        InputError: there are fewer than `count`.
    """
    if count > n:
        raise InputError(f"{name} has {n} examples; {count} cannot be drawn.")
    generator = np.random.default_rng(seed)
    if y is None or y.ndim != 1 or y.dtype.kind not in "biu":
        return np.sort(generator.choice(n, count, replace=False))
    classes, numbers, sizes = np.unique(y, return_inverse=True, return_counts=True)
    shares = sizes * (count / n)
    taken = np.floor(shares).astype(np.int64)
    # ties go to the class that comes first
    rest = np.argsort(-(shares - taken), kind="stable")[: count - int(taken.sum())]
    taken[rest] += 1
    rows = [generator.choice(np.flatnonzero(numbers == i), taken[i], replace=False) for i in range(len(classes))]
    return np.sort(np.concatenate(rows))
