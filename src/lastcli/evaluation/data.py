"""Held-out splits: inputs, labels and lengths from an `.npz`, cut into equal batches. No model is known here.

A split is an `.npz` with `x` (n, L, F) or (n, L), optional `y` and optional `lengths` (n,). For two-tower models x is
(n, 2, L[, F]) and lengths (n, 2). Integer `x` without a feature axis are tokens; with one they need a declared scale
(1/255 for 8-bit images), from the array `scale` in the file, a recipe or a flag. Whether a split fits a model is the
question of `fitting`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.locations import Location, parse_location, parse_rows, parse_scale
from lastcli.evaluation.npz import ArrayHeader, Npz

__all__ = ["Batch", "Batches", "Split", "load_split", "open_split"]


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
        for start in range(0, self.split.n, self.size):
            yield self.split.batch(start, self.size)


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in the dtype they are stored in; conversion happens batch by batch.

    Attributes:
        x: (n, L, F), (n, L), (n, 2, L, F) or (n, 2, L), any real dtype.
        y: (n,) labels, (n, p) or (n, L, p) targets, or None.
        lengths: (n,) or (n, 2) true lengths, or None.
        scale: factor from stored to model inputs, None for 1.
        name: where it came from, for messages.
    """

    x: np.ndarray
    y: np.ndarray | None = None
    lengths: np.ndarray | None = None
    scale: float | None = None
    name: str = "data"

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
        return Batch(self._inputs(index), self._targets(index), lengths, weights)

    def rows(self, index: np.ndarray) -> Batch:
        """Any examples by number, as one batch without padding."""
        lengths = None if self.lengths is None else self.lengths[index].astype(np.int32)
        return Batch(self._inputs(index), self._targets(index), lengths, np.ones(len(index), np.float32))

    def _inputs(self, index: np.ndarray) -> np.ndarray:
        x = self.x[index]
        if self.scale is not None:
            return (x.astype(np.float64) * self.scale).astype(np.float32)
        return x.astype(np.float32 if x.dtype.kind == "f" else np.int32, copy=False)

    def _targets(self, index: np.ndarray) -> np.ndarray | None:
        if self.y is None:
            return None
        y = self.y[index]
        return y.astype(np.float32 if y.dtype.kind == "f" else np.int32, copy=False)

    def part(self, limit: str | None) -> Split:
        """The examples of a range such as `2000` or `1000:3000`; all of them without one."""
        if limit is None:
            return self
        rows = parse_rows(limit)
        y, lengths = (None if array is None else array[rows] for array in (self.y, self.lengths))
        return dataclasses.replace(self, x=self.x[rows], y=y, lengths=lengths)

    def thinned(self, count: int) -> Split:
        """`count` of the examples, spread evenly from the first to the last; all of them where there are fewer."""
        if count >= self.n:
            return self
        return self._taken(np.linspace(0, self.n - 1, count).round().astype(int))

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
        return self._taken(np.sort(order[:count])), self._taken(np.sort(order[count:]))

    def _taken(self, rows: np.ndarray) -> Split:
        y, lengths = (None if array is None else array[rows] for array in (self.y, self.lengths))
        return dataclasses.replace(self, x=self.x[rows], y=y, lengths=lengths)

    def without_labels(self) -> Split:
        """The same inputs, with no labels to look at: what a calibration may use."""
        return dataclasses.replace(self, y=None)


def load_split(location: str | Path | Location, *, scale: str | None = None, limit: str | None = None) -> Split:
    """A split as a command line or a recipe names it.

    Args:
        location: text such as `FILE.npz:train:0:128`, a plain path, or a location read already.
        scale: a factor such as `1/255`; comes before the file's own.
        limit: examples to keep, such as `2000` or `1000:3000`, instead of the location's range.

    Raises:
        InputError: as `open_split`.
        UsageError: the range or scale cannot be read.
    """
    factor = None if scale is None else parse_scale(scale)
    return open_split(location, scale=factor, rows=None if limit is None else parse_rows(limit))


def open_split(location: str | Path | Location, *, scale: float | None = None, rows: slice | None = None) -> Split:
    """Read a split from an `.npz`.

    Args:
        location: a text may name a part and a range (`FILE.npz:train:0:128`); a path is the file of that name.
        scale: factor for the inputs; comes before the file's own `scale`.
        rows: examples to keep, instead of the location's range.

    Raises:
        InputError: the file is missing, damaged, a bomb, holds objects, is empty, or lacks `x`; sizes disagree.
    """
    if not isinstance(location, Location):
        location = Location(location) if isinstance(location, Path) else parse_location(location)
    file, part = location.path, location.part
    rows = location.rows if rows is None else rows
    with Npz(file) as archive:
        names = {key: f"{key}_{part}" if part else key for key in ("x", "y", "lengths")}
        if names["x"] not in archive:
            raise InputError(_no_inputs(file, names["x"], archive.keys))
        headers = {key: archive.header(name) for key, name in names.items() if name in archive}
        _same_count(file, headers)
        count = headers["x"].shape[0]
        start, stop, _ = slice(None).indices(count) if rows is None else rows.indices(count)
        if rows is not None and stop <= start:
            asked = f"{rows.start or 0}:{'' if rows.stop is None else rows.stop}"
            raise InputError(f"{file} has {count} examples; none are left of {asked}.")
        arrays = {key: archive.read(header, start, stop) for key, header in headers.items()}
        scale = _checked_scale(scale, "the scale given") if scale is not None else _own_scale(archive, part)
    split = Split(arrays["x"], arrays.get("y"), arrays.get("lengths"), scale, str(file))
    if split.lengths is not None and split.lengths.dtype.kind not in "iu":
        raise InputError(f"{file}: lengths have dtype {split.lengths.dtype}; whole numbers are needed.")
    return split


def _no_inputs(file: Path, name: str, keys: tuple[str, ...]) -> str:
    parts = [key.removeprefix("x_") for key in keys if key.startswith("x_")]
    if parts:
        return f"{file} has no array {name!r}; name a part: " + ", ".join(f"{file.name}:{part}" for part in parts) + "."
    return f"{file} has no array {name!r} (it holds {', '.join(map(repr, keys[:8])) or 'nothing'}); inputs go into 'x'."


def _same_count(file: Path, headers: dict[str, ArrayHeader]) -> None:
    shape = headers["x"].shape
    if not 2 <= len(shape) <= 4:
        raise InputError(f"{file}: x has shape {shape}; (n, L, F) or (n, L) is needed.")
    if 0 in shape:
        raise InputError(f"{file} is an empty split: x has shape {shape}.")
    for key, header in headers.items():
        if not header.shape or header.shape[0] != shape[0]:
            raise InputError(f"{file}: x has {shape[0]} examples, but {key} has shape {header.shape}.")


def _own_scale(archive: Npz, part: str | None) -> float | None:
    for key in (f"scale_{part}", "scale"):
        if key in archive:
            header = archive.header(key)
            if header.shape not in ((), (1,)):
                raise InputError(f"{archive.path}: scale has shape {header.shape}; one number is needed.")
            return _checked_scale(float(archive.read(header).reshape(())), f"scale in {archive.path}")
    return None


def _checked_scale(scale: float, what: str) -> float:
    if not np.isfinite(scale) or scale == 0:
        raise InputError(f"{what} is {scale}; a finite number other than 0 is needed, for example 1/255.")
    return float(scale)
