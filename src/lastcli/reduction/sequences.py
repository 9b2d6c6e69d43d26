"""Calibration sequences: a part to fit, a part to hold back, and minibatches with splices and mixtures.

A batch takes its rows from the split as they are stored; nothing is converted or copied for all of them at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from lastcli.errors import InputError
from lastcli.evaluation.data import Batches, Split

__all__ = ["Sequences", "Source", "divide", "minibatch", "source_of"]

# More sequences than these tell little more about when to stop, and each check costs a pass over all of them.
_MOST_HELD = 512
# Shares of a minibatch that are spliced and mixed; the rest stays as it is.
_SPLICED, _MIXED = 0.4, 0.4


@dataclass(frozen=True, eq=False)
class Sequences:
    """Inputs of a model, in memory.

    Attributes:
        x: (n, L, ...), or (n, 2, L, ...) for two-tower models.
        lengths: (n,) or (n, 2) true lengths, or None.
        time: the axis of x that is time.
        late: the share of every sequence's own steps, the last ones, that is told apart from the others; 0 for none.
        only: "early" or "late" where only the outputs of those steps count; for models with an output at every step.
    """

    x: np.ndarray
    lengths: np.ndarray | None
    time: int
    late: float = 0.0
    only: str | None = None

    @property
    def weights(self) -> np.ndarray:
        """(n, L) float32: 0 beyond the true length and at steps that do not count."""
        length = self.x.shape[self.time]
        own = np.full(len(self.x), length)
        if self.lengths is not None and self.lengths.ndim == 1:
            own = np.asarray(self.lengths)
        steps = np.arange(length)
        counts = steps < own[:, None]
        if self.only is not None:
            late = steps >= (own - np.maximum(np.round(self.late * own), 1))[:, None]
            counts &= late if self.only == "late" else ~late
        return counts.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Source:
    """Sequences of a split, read when asked for.

    Attributes:
        split: where they come from.
        index: (n,) which examples of it.
        time: the axis of an example's batch that is time.
        late, only: as those of `Sequences`.
    """

    split: Split
    index: np.ndarray
    time: int
    late: float = 0.0
    only: str | None = None

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, which: np.ndarray) -> Sequences:
        """Some of the sequences."""
        taken = self.split.rows(self.index[which])
        return Sequences(taken.x, taken.lengths, self.time, self.late, self.only)

    def parts(self, size: int) -> list[Sequences]:
        """All sequences in their order, `size` at a time."""
        return [self.rows(np.arange(start, min(start + size, len(self)))) for start in range(0, len(self), size)]


def source_of(batches: Batches, *, pair: bool = False) -> Source:
    """Every sequence of the split behind some batches.

    Raises:
        InputError: there are none.
    """
    split = batches.split
    if split.n == 0:
        raise InputError("Matching the output needs calibration inputs, and there are none that count.")
    return Source(split, np.arange(split.n), 2 if pair else 1)


def divide(source: Source, held_back: float, *, by_time: bool) -> tuple[Source, Source]:
    """What is fitted and what is held back: every k-th sequence, or of fewer than five the last own steps of each.

    Args:
        held_back: share to hold back, 512 sequences at most.
        by_time: whether steps can be held back: the model has an output at every step.

    Raises:
        InputError: one sequence, and only one output for it.
    """
    n = len(source)
    if n >= 5 or (n > 1 and not by_time):
        count = min(max(round(held_back * n), 1), n - 1, _MOST_HELD)
        rows = np.linspace(0, n - 1, count).round().astype(int)
        held = np.isin(np.arange(n), rows)
        return (
            dataclasses.replace(source, index=source.index[~held]),
            dataclasses.replace(source, index=source.index[held]),
        )
    if not by_time:
        raise InputError("Matching the output needs at least two calibration sequences: one to fit, one to hold back.")
    return (
        dataclasses.replace(source, late=held_back, only="early"),
        dataclasses.replace(source, late=held_back, only="late"),
    )


def minibatch(source: Source, size: int, random: np.random.Generator) -> Sequences:
    """A random minibatch; some sequences are spliced from two at a random step, some are mixtures of two.

    A splice takes the head of one sequence and the tail (and the true length) of another. Tokens are never mixed.
    """
    n = len(source)
    first, second = (source.rows(random.integers(0, n, min(size, n))) for _ in range(2))
    x, other, time = first.x, second.x, source.time
    what = random.random(len(x))
    spliced = what < _SPLICED
    lead, length = x.shape[:time], x.shape[time]
    shortest = np.full(lead, length)
    lengths = None
    if first.lengths is not None and second.lengths is not None:
        shortest = np.minimum(first.lengths, second.lengths)
        lengths = np.where(_behind(spliced, first.lengths.ndim), second.lengths, first.lengths)
    cut = (random.random(lead) * (shortest + 1)).astype(int)
    tail = (np.arange(length) >= cut[..., None]) & _behind(spliced, time + 1)
    mixed = np.where(tail.reshape(*tail.shape, *[1] * (x.ndim - tail.ndim)), other, x)
    if x.dtype.kind == "f":
        share = np.where((what >= _SPLICED) & (what < _SPLICED + _MIXED), random.uniform(0, 0.5, len(x)), 0)
        mixed = mixed + _behind(share.astype(x.dtype), x.ndim) * (other - x)
    return dataclasses.replace(first, x=mixed, lengths=lengths)


def _behind(values: np.ndarray, ndim: int) -> np.ndarray:
    """(n,) values with trailing axes, to broadcast against an array of `ndim` axes."""
    return values.reshape(len(values), *[1] * (ndim - 1))
