"""Matching of outputs that can be interrupted: what is kept of a descent, and under which name.

Minibatches are numbered, so a descent that is taken up again takes the very steps that it would have taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from lastcli.reduction.lessons import Lessons

__all__ = ["Unfinished", "identity_of"]


class Unfinished(Protocol):
    """Where descents are kept."""

    def read(self, name: str, like: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray] | None:
        """What was kept under a name, arrays named, shaped and typed as those of `like`; None where nothing was."""

    def write(self, name: str, arrays: Callable[[], dict[str, np.ndarray]], *, done: bool) -> None:
        """Keep what is there; of a descent that is not `done` only now and then."""


def identity_of(lessons: Lessons, trees: Sequence[Any]) -> str:
    """A name for what is fitted, on what: the students' arrays, and all that `Lessons.digest` stands for."""
    leaves, form = jax.tree.flatten(list(trees))
    digest = hashlib.sha256(f"{lessons.digest} {form}".encode())
    for array in map(np.asarray, leaves):
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:32]
