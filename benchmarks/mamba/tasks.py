"""What the small models learn: characters of Python's own documentation, and associative recall.

Inputs are int32 (n, L); labels (n, L), -100 where a step is not scored.
"""

from __future__ import annotations

import pydoc_data.topics

import numpy as np

__all__ = ["characters", "recall"]

KEYS = 16


def characters(n: int, length: int, seed: int, *, held_out: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """(n, length) characters, the next ones, and how many there are; the last tenth of the text is held out."""
    text = "".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
    known = sorted(set(text))
    ids = np.array([known.index(c) for c in text], np.int32)
    cut = len(ids) * 9 // 10
    part = ids[cut:] if held_out else ids[:cut]
    starts = np.random.default_rng(seed).integers(0, len(part) - length - 1, n)
    rows = part[starts[:, None] + np.arange(length + 1)]
    return rows[:, :-1], rows[:, 1:], len(known)


def recall(n: int, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Keys with values, then keys again: the label behind a repeated key is its value, all others are not scored."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 3 * pairs), np.int32)
    y = np.full(x.shape, -100, np.int32)
    for row in range(n):
        keys = rng.permutation(KEYS)[:pairs]
        values = KEYS + rng.integers(0, KEYS, pairs)
        order = rng.permutation(pairs)
        x[row, 0 : 2 * pairs : 2], x[row, 1 : 2 * pairs : 2], x[row, 2 * pairs :] = keys, values, keys[order]
        y[row, 2 * pairs :] = values[order]
    return x, y, 2 * KEYS
