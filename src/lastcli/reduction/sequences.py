"""Calibration sequences in memory: a part to fit, a part to hold back, and minibatches with splices and mixtures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lastcli.errors import InputError
from lastcli.evaluation.data import Batch

__all__ = ["Sequences", "divide", "load_sequences", "minibatch"]

# Of larger calibration splits only the first sequences are used.
_INPUT_BYTES = 512 * 2**20
# Shares of a minibatch that are spliced and mixed; the rest stays as it is.
_SPLICED, _MIXED = 0.4, 0.4


@dataclass(frozen=True, eq=False)
class Sequences:
    """Inputs of a model.

    Attributes:
        x: (n, L, ...), or (n, 2, L, ...) for two-tower models.
        lengths: (n,) or (n, 2) true lengths, or None.
        time: the axis of x that is time.
        counted: (L,) float, 0 at steps whose outputs do not count; only for models with an output at every step.
    """

    x: np.ndarray
    lengths: np.ndarray | None
    time: int
    counted: np.ndarray

    def rows(self, index: np.ndarray) -> Sequences:
        """Some of the sequences."""
        lengths = None if self.lengths is None else self.lengths[index]
        return dataclasses.replace(self, x=self.x[index], lengths=lengths)

    @property
    def weights(self) -> np.ndarray:
        """(n, L) float32: 0 beyond the true length and at steps that do not count."""
        steps = np.arange(self.x.shape[self.time])
        inside = np.ones((len(self.x), len(steps)), bool)
        if self.lengths is not None and self.lengths.ndim == 1:
            inside = steps < self.lengths[:, None]
        return (inside * self.counted).astype(np.float32)


def load_sequences(batches: Iterable[Batch], *, pair: bool = False) -> Sequences:
    """The sequences of the batches that count, as many as memory should hold.

    Raises:
        InputError: there are none.
    """
    xs: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    room = _INPUT_BYTES
    for batch in batches:
        x = np.asarray(batch.x)
        take = np.flatnonzero(batch.weights > 0)[: max(room // max(x[0].nbytes, 1), 0 if xs else 2)]
        if len(take) == 0:
            break
        xs.append(x[take])
        if batch.lengths is not None:
            lengths.append(np.asarray(batch.lengths)[take])
        room -= xs[-1].nbytes
    if not xs:
        raise InputError("Matching the output needs calibration inputs, and there are none that count.")
    x, time = np.concatenate(xs), 2 if pair else 1
    return Sequences(x, np.concatenate(lengths) if lengths else None, time, np.ones(x.shape[time]))


def divide(sequences: Sequences, held_back: float, *, by_time: bool) -> tuple[Sequences, Sequences]:
    """What is fitted and what is held back: every k-th sequence, or of fewer than five the last steps of each.

    Args:
        by_time: whether steps can be held back: the model has an output at every step.

    Raises:
        InputError: one sequence, and only one output for it.
    """
    n, length = len(sequences.x), sequences.x.shape[sequences.time]
    if n >= 5 or (n > 1 and not by_time):
        rows = np.linspace(0, n - 1, min(max(round(held_back * n), 1), n - 1)).round().astype(int)
        held = np.isin(np.arange(n), rows)
        return sequences.rows(np.flatnonzero(~held)), sequences.rows(np.flatnonzero(held))
    if not by_time:
        raise InputError("Matching the output needs at least two calibration sequences: one to fit, one to hold back.")
    late = np.arange(length) >= length - max(round(held_back * length), 1)
    return (
        dataclasses.replace(sequences, counted=(~late).astype(float)),
        dataclasses.replace(sequences, counted=late.astype(float)),
    )


def minibatch(sequences: Sequences, size: int, random: np.random.Generator) -> Sequences:
    """A random minibatch; some sequences are spliced from two at a random step, some are mixtures of two.

    A splice takes the head of one sequence and the tail (and the true length) of another. Tokens are never mixed.
    """
    n = len(sequences.x)
    first, second = (sequences.rows(random.integers(0, n, min(size, n))) for _ in range(2))
    x, other, time = first.x, second.x, sequences.time
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
