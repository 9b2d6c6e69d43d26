"""Held-out splits: inputs, labels and lengths from an `.npz`, checked before use, and cut into equal batches.

A split is an `.npz` with `x` (n, L, F) or (n, L), optional `y` and optional `lengths` (n,). For two-tower models x is
(n, 2, L[, F]) and lengths (n, 2). Integer `x` without a feature axis are tokens; with one they need a declared scale
(1/255 for 8-bit images), from the array `scale` in the file, a recipe or a flag. One file may hold several parts, as
`x_train`, `y_train` beside `x`, `y`: `FILE.npz:train` names one, `FILE.npz:0:128` a range of examples, and
`FILE.npz:train:0:128` both.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.npz import ArrayHeader, Npz
from lastcli.families.base import Forward

__all__ = ["Batch", "Batches", "Split", "open_split", "parse_location", "parse_scale", "parse_subset", "random_split"]

CHECK_ROWS = 256
LOCATION = re.compile(
    r"^(?P<path>.*?\.npz)(?::(?P<part>[A-Za-z_]\w*))?(?::(?P<subset>-?\d*:-?\d*))?$", re.IGNORECASE | re.DOTALL
)


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

    def check(self, forward: Forward, *, labels: bool = True) -> Split:
        """The split in the shape the model takes, or the reason why it cannot be used.

        Args:
            labels: whether `y` is needed (not for calibration).

        Raises:
            InputError: wrong feature count, tokens or labels out of range, one class only, NaN or infinite inputs,
                a missing scale, targets or lengths of the wrong shape.
        """
        from lastcli.evaluation.fitting import fit_split

        return fit_split(self, forward, labels=labels)

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

    def take(self, selection: slice | np.ndarray) -> Split:
        """Some of the examples: a slice, indices, or a boolean mask.

        Raises:
            InputError: none are left.
        """
        part = dataclasses.replace(
            self,
            x=self.x[selection],
            y=None if self.y is None else self.y[selection],
            lengths=None if self.lengths is None else self.lengths[selection],
        )
        if part.n == 0:
            raise InputError(f"{self.name} has {self.n} examples; none are left of the part asked for.")
        return part

    def without_labels(self) -> Split:
        """The same inputs, with no labels to look at: what a calibration may use."""
        return dataclasses.replace(self, y=None)


def open_split(
    path: str | Path, *, part: str | None = None, scale: float | None = None, subset: str | slice | None = None
) -> Split:
    """Read a split from an `.npz`.

    Args:
        path: the file; the part and the range may follow (`FILE.npz:train:0:128`).
        part: suffix of the arrays' names: "train" reads x_train, y_train, lengths_train.
        scale: factor for the inputs; comes before the file's own `scale`.
        subset: examples to keep, a slice or "a:b".

    Raises:
        InputError: the file is missing, damaged, a bomb, holds objects, is empty, or lacks `x`; sizes disagree.
        UsageError: the range or scale cannot be read.
    """
    file, named_part, named_subset = parse_location(str(path))
    part = part or named_part
    rows = parse_subset(subset) if subset is not None else named_subset
    with Npz(file) as archive:
        names = {key: f"{key}_{part}" if part else key for key in ("x", "y", "lengths")}
        if names["x"] not in archive:
            raise InputError(_no_inputs(file, names["x"], archive.keys))
        headers = {key: archive.header(name) for key, name in names.items() if name in archive}
        _same_count(file, headers)
        start, stop, step = (rows or slice(None)).indices(headers["x"].shape[0])
        if stop <= start:
            raise InputError(f"{file} has {headers['x'].shape[0]} examples; none are left of {_text(rows)}.")
        arrays = {key: archive.read(header, start, stop)[::step] for key, header in headers.items()}
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


def parse_location(text: str) -> tuple[Path, str | None, slice | None]:
    """`FILE.npz`, `FILE.npz:PART`, `FILE.npz:a:b` or `FILE.npz:PART:a:b`; a file of that whole name comes first."""
    match = LOCATION.match(text)
    if match is None or (":" in text and "\0" not in text and Path(text).exists()):
        return Path(text), None, None
    subset = match["subset"]
    return Path(match["path"]), match["part"], None if subset is None else parse_subset(subset)


def parse_subset(text: str | slice) -> slice:
    """A range of examples: "a:b" (b left out), ":b", "a:", or "b" for the first b.

    Raises:
        UsageError: not such a range.
    """
    if isinstance(text, slice):
        return text
    match = re.fullmatch(r"\s*(?:(-?\d+)?\s*:)?\s*(-?\d+)?\s*", text)
    if match is None or not text.strip():
        raise UsageError(f"{text!r} is not a range of examples; write first:last, for example 0:128.")
    first, last = match.groups()
    return slice(int(first) if first else None, int(last) if last else None)


def parse_scale(text: str | float) -> float:
    """A factor such as 0.5 or 1/255.

    Raises:
        UsageError: not a finite number other than 0.
    """
    if isinstance(text, str) and (len(text) > 100 or re.search(r"e[+-]?_?\d{4}", text.lower())):
        raise UsageError(f"{text[:60]!r} is not a scale; write a number such as 0.5 or 1/255.")
    try:
        value = float(Fraction(text)) if isinstance(text, str) else float(text)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise UsageError(f"{text!r} is not a scale; write a number such as 0.5 or 1/255.") from error
    if not np.isfinite(value) or value == 0:
        raise UsageError(f"{text!r} is not a scale; a finite number other than 0 is needed.")
    return value


def _text(rows: slice | None) -> str:
    return "the whole file" if rows is None else f"{rows.start or 0}:{'' if rows.stop is None else rows.stop}"


def random_split(forward: Forward, *, n: int = 8, length: int = 64, tokens: bool = False, seed: int = 0) -> Split:
    """Unlabelled random inputs of the shape the model takes: standard normal features, or uniform tokens.

    For comparing two models where no data is at hand; long enough for one output.
    """
    generator = np.random.default_rng(seed)
    length = max(length, forward.output_step)
    shape = (n, 2, length) if forward.layout == "pair" else (n, length)
    if tokens:
        x: np.ndarray = generator.integers(0, forward.features, shape, dtype=np.int32)
    else:
        x = generator.standard_normal((*shape, forward.features), dtype=np.float32)
    return Split(x, name="random inputs")
