"""Sequences of different lengths as one array with zeros behind the shorter ones, and their true lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lastcli.errors import InputError

__all__ = ["padded"]


def padded(
    rows: Sequence[np.ndarray], where: str, what: str = "example", fill: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """(n, L, ...) of sequences (L_i, ...), and lengths (n,), None where all are equal.

    Raises:
        InputError: there are none, one is empty, or one has other features; the first such is named, as `what`.
    """
    if not rows:
        raise InputError(f"{where} is an empty split: it holds no example.")
    for number, row in enumerate(rows):
        if row.shape[1:] != rows[0].shape[1:] or not row.size:
            fault = "is empty" if not row.size else f"has features {row.shape[1:]}, those before it {rows[0].shape[1:]}"
            raise InputError(f"{where}: {what} {number} {fault}.")
    lengths = np.array([len(row) for row in rows], np.int64)
    longest = int(lengths.max())
    dtype = np.result_type(*{row.dtype for row in rows})
    try:
        x = np.full((len(rows), longest, *rows[0].shape[1:]), fill, dtype)
    except (MemoryError, ValueError) as error:
        raise InputError(
            f"{where}: {len(rows)} sequences, padded to the longest of {longest:,} steps, do not fit into memory; "
            "shorten that one or take a part."
        ) from error
    for number, row in enumerate(rows):
        x[number, : len(row)] = row
    return x, lengths if int(lengths.min()) < longest else None
