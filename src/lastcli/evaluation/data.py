"""Held-out splits: inputs, labels and lengths, cut into equal batches. No model is known here.

Where they come from is the business of `evaluation.readers`: `x` (n, L, F) or (n, L), optional `y` and optional
`lengths` (n,). For two-tower models x is (n, 2, L[, F]) and lengths (n, 2). Integer `x` without a feature axis are
tokens; with one they need a declared scale (1/255 for 8-bit images), from the file, a recipe or a flag. Whether a split
fits a model is the question of `fitting`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.errors import InputError, UsageError
from lastcli.evaluation import readers
from lastcli.evaluation.locations import Location, parse_location, parse_rows, parse_scale
from lastcli.evaluation.normalisation import checked_numbers, checked_scale, parse_numbers
from lastcli.evaluation.readers.base import Found, Request, check_shapes
from lastcli.evaluation.readers.columns import parse_columns
from lastcli.evaluation.readers.masks import lengths_of
from lastcli.evaluation.readers.stored import Array, rows_of
from lastcli.evaluation.subsets import drawn_rows, rows_to_draw

__all__ = ["Batch", "Batches", "Split", "load_split", "open_split"]

# Bytes of a split that are read at a time to digest it.
_READ_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of fixed size; padded rows repeat the first one and have weight 0.

    Attributes:
        x: (size, L, F) float32, (size, L) int32 tokens, or with a pair axis after the first.
        y: (size, ...) labels int32 or targets float32, None without labels.
        lengths: (size,) or (size, 2) int32, None where every sequence is full.
        weights: (size,) float32, 1 for examples and 0 for padding.
    """

    x: np.ndarray
    y: np.ndarray | None
    lengths: np.ndarray | None
    weights: np.ndarray

    @property
    def count(self) -> int:
        """How many examples are real; they come first."""
        return int(self.weights.sum())


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a split; can be iterated any number of times."""

    split: Split
    size: int

    def __len__(self) -> int:
        return -(-self.split.n // self.size)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.numbered, range(len(self)))

    def numbered(self, number: int) -> Batch:
        """One of them, from 0."""
        return self.split.batch(number * self.size, self.size)


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in the dtype they are stored in; conversion happens batch by batch.

    Attributes:
        x: (n, L, F), (n, L), (n, 2, L, F) or (n, 2, L), any real dtype; on disk still where the format allows it.
        y: (n,) labels, (n, p) or (n, L, p) targets, or None.
        lengths: (n,) or (n, 2) true lengths, or None.
        scale: factor from stored to model inputs, None for 1.
        name: where it came from, for messages.
        mean, std: (1,) or (F,), the model's inputs are (x·scale - mean) / std; None for 0 and 1.
        classes: the names of the classes 0, 1, … where the data have text for them.
    """

    x: Array
    y: np.ndarray | None = None
    lengths: np.ndarray | None = None
    scale: float | None = None
    name: str = "data"
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """The number of examples."""
        return int(self.x.shape[0])

    @property
    def steps(self) -> int:
        """Time steps of an example, those of both documents of a pair together."""
        return int(np.prod(self.x.shape[1 : 3 if self.x.ndim == 4 else 2]))

    @property
    def padded(self) -> bool:
        """Whether a sequence is shorter than the array, by its true length."""
        if self.lengths is None:
            return False
        return bool((self.lengths < self.x.shape[2 if self.lengths.ndim == 2 else 1]).any())

    def batches(self, size: int) -> Batches:
        """Batches of exactly `size` examples, the last one padded."""
        if size < 1:
            raise UsageError(f"The batch size must be at least 1, not {size}.")
        return Batches(self, size)

    def batch(self, start: int, size: int) -> Batch:
        """Examples start..start+size, padded with copies of the first of them (zeros would make 0/0 of a mean)."""
        stop = min(start + size, self.n)
        index = np.full(size, start)
        index[: stop - start] = np.arange(start, stop)
        weights = np.zeros(size, np.float32)
        weights[: stop - start] = 1.0
        lengths = None if self.lengths is None else self.lengths[index].astype(np.int32)
        return Batch(self.inputs(index), self._targets(index), lengths, weights)

    def rows(self, index: np.ndarray) -> Batch:
        """Any examples by number, as one batch without padding."""
        lengths = None if self.lengths is None else self.lengths[index].astype(np.int32)
        return Batch(self.inputs(index), self._targets(index), lengths, np.ones(len(index), np.float32))

    @property
    def normalised(self) -> bool:
        """Whether something says how stored numbers become inputs."""
        return self.scale is not None or self.mean is not None or self.std is not None

    def inputs(self, index: np.ndarray | slice) -> np.ndarray:
        """The model's inputs of some examples: float32, or int32 tokens."""
        x = np.asarray(self.x[index])
        if self.normalised:
            values = x.astype(np.float64) * (1.0 if self.scale is None else self.scale)
            values = values if self.mean is None else values - self.mean
            return (values if self.std is None else values / self.std).astype(np.float32)
        return x.astype(np.float32 if x.dtype.kind == "f" else np.int32, copy=False)

    def _targets(self, index: np.ndarray) -> np.ndarray | None:
        if self.y is None:
            return None
        y = self.y[index]
        return y.astype(np.float32 if y.dtype.kind == "f" else np.int32, copy=False)

    def part(self, limit: str | None, seed: int | None = None) -> Split:
        """The examples of a range such as `2000` or `1000:3000`; all of them without one.

        With a seed, a limit that is one number draws so many of them, by `drawn_rows`.

        Raises:
            UsageError: the limit cannot be read.
            InputError: there are fewer.
        """
        if limit is None:
            return self
        count = rows_to_draw(limit, seed)
        if count is None or seed is None:
            return self.only(parse_rows(limit))
        return self.only(drawn_rows(self.n, count, self.y, seed, self.name))

    def digest(self) -> str:
        """The sha256 of inputs, labels, lengths and how they are scaled; what is on disk is read in pieces."""
        found = hashlib.sha256(repr(self.scale).encode())
        for array in (self.x, self.y, self.lengths, self.mean, self.std):
            if array is None:
                found.update(b"none")
                continue
            found.update(f"{array.dtype.str}{array.shape}".encode())
            rows = max(1, _READ_BYTES // max(1, array.nbytes // max(1, len(array))))
            for start in range(0, len(array), rows):
                found.update(np.ascontiguousarray(array[start : start + rows]).data)
        return found.hexdigest()

    def only(self, rows: slice | np.ndarray) -> Split:
        """Some of the examples; what is on disk stays there."""
        x, y, lengths = (rows_of(array, rows) for array in (self.x, self.y, self.lengths))
        return dataclasses.replace(self, x=x, y=y, lengths=lengths)

    def thinned(self, count: int) -> Split:
        """`count` of the examples, spread evenly from the first to the last; all of them where there are fewer."""
        if count >= self.n:
            return self
        return self.only(np.linspace(0, self.n - 1, count).round().astype(int))

    def divided(self, share: float, seed: int) -> tuple[Split, Split]:
        """A share of the examples, drawn by the seed, and the others; both in their old order.

        Raises:
            UsageError: no example is left for one of them.
        """
        count = round(share * self.n)
        if not 0 < count < self.n:
            raise UsageError(
                f"A share of {share:g} of the {self.n} examples of {self.name} leaves nothing for one of two parts; "
                "take another share or more examples."
            )
        order = np.random.default_rng(seed).permutation(self.n)
        return self.only(np.sort(order[:count])), self.only(np.sort(order[count:]))

    def without_labels(self) -> Split:
        """The same inputs, with no labels to look at: what a calibration may use."""
        return dataclasses.replace(self, y=None)


def load_split(
    location: str | Path | Location,
    *,
    scale: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    limit: str | None = None,
    seed: int | None = None,
    labels: bool = True,
    columns: str | None = None,
    beside: Callable[[], Path] | None = None,
) -> Split:
    """A split as a command line or a recipe names it.

    Args:
        location: text such as `FILE.npz:train:0:128`, a plain path, or a location read already.
        scale: a factor such as `1/255`; comes before the file's own, as do the next two.
        mean, std: one number, or one for each feature, with commas.
        limit: examples to keep, such as `2000` or `1000:3000`, instead of the location's range.
        seed: with it, a limit that is one number draws so many examples of the location's range, by `drawn_rows`.
        labels: whether they are read, and examples drawn by them; a calibration looks at none.
        columns: which columns or arrays are what, `x=open,x=close,y=label`.
        beside: gives the folder of the model, where its tokenizer and vocabulary lie.

    Raises:
        InputError: as `open_split`.
        UsageError: a range, scale, mean, deviation or list of columns cannot be read.
    """
    count = rows_to_draw(limit, seed)
    split = open_split(
        location,
        scale=None if scale is None else parse_scale(scale),
        mean=None if mean is None else parse_numbers(mean, "--mean"),
        std=None if std is None else parse_numbers(std, "--std"),
        rows=None if limit is None or count is not None else parse_rows(limit),
        columns=columns,
        beside=beside,
    )
    split = split if labels else split.without_labels()
    return split if count is None else split.part(limit, seed)


def open_split(
    location: str | Path | Location,
    *,
    scale: float | None = None,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
    rows: slice | None = None,
    columns: str | None = None,
    beside: Callable[[], Path] | None = None,
) -> Split:
    """Read a split of any format that `evaluation.readers` knows.

    Args:
        location: a text may name a part and a range (`FILE.npz:train:0:128`); a path is the file of that name.
        scale, mean, std: of the inputs; they come before the file's own.
        rows: examples to keep, instead of the location's range.
        columns, beside: as for `load_split`.

    Raises:
        InputError: the file is missing, damaged, a bomb, holds objects, is empty, or lacks `x`; sizes disagree; a mask
            has padding before or between steps.
        UsageError: an optional library is missing.
    """
    if not isinstance(location, Location):
        location = Location(location) if isinstance(location, Path) else parse_location(location)
    rows = location.rows if rows is None else rows
    request = Request(location.path, location.part, rows, parse_columns(columns), beside)
    found = readers.read(request)
    where, shape = str(location.path), found.x.shape
    arrays = {"x": found.x, "y": found.y, "lengths": found.lengths, "mask": found.mask}
    check_shapes(where, {role: array.shape for role, array in arrays.items() if array is not None})
    if found.lengths is not None and found.lengths.dtype.kind not in "iu":
        raise InputError(f"{where}: lengths have dtype {found.lengths.dtype}; whole numbers are needed.")
    lengths = found.lengths
    if found.mask is not None and lengths is None:
        lengths = lengths_of(found.mask, shape, where)
    given = {"scale": scale, "mean": mean, "std": std}
    split = Split(found.x, found.y, lengths, name=where, classes=found.classes, **_normalisation(found, given, where))
    return split if found.taken else split.only(slice(*request.bounds(split.n)))


def _normalisation(found: Found, given: dict[str, Any], where: str) -> dict[str, Any]:
    """What flags or a recipe say, else what the data say."""
    result: dict[str, Any] = {}
    for key, own in (("scale", found.scale), ("mean", found.mean), ("std", found.std)):
        value, what = (own, f"{key} in {where}") if given[key] is None else (given[key], f"the {key} given")
        if value is not None:
            result[key] = checked_scale(value, what) if key == "scale" else checked_numbers(value, what, key == "std")
    return result
