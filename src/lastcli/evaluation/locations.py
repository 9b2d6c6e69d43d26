"""The texts that name data: a file or folder with a part of it, a range of examples, a scale.

One file may hold several parts, as `x_train`, `y_train` beside `x`, `y`: `FILE.npz:train` names one, `FILE.npz:0:128`
a range of examples, and `FILE.npz:train:0:128` both. `module:function` looks the same; which it is the readers decide.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from lastcli.errors import UsageError

__all__ = ["Location", "parse_location", "parse_rows", "parse_scale"]

_LOCATION = re.compile(
    r"^(?P<path>.+?)(?::(?P<part>[A-Za-z_][\w-]*))?(?::(?P<rows>-?\d*:-?\d*))?$", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True)
class Location:
    """Where a split is.

    Attributes:
        path: the file or folder.
        part: which split of several: "train" means x_train, y_train, lengths_train in an `.npz`. None for none.
        rows: the examples meant, first:last, None for all.
    """

    path: Path
    part: str | None = None
    rows: slice | None = None

    @property
    def name(self) -> str:
        """The file's name without its folders, with the part and the range: `FILE.npz:train:0:128`."""
        ends = () if self.rows is None else (self.rows.start, self.rows.stop)
        rows = ["" if end is None else str(end) for end in ends]
        return ":".join([self.path.name, *([self.part] if self.part else []), *rows])


def parse_location(text: str) -> Location:
    """`FILE`, `FILE:PART`, `FILE:a:b` or `FILE:PART:a:b`; a file of that whole name comes first."""
    match = _LOCATION.match(text)
    if match is None or (":" in text and _exists(text)):
        return Location(Path(text))
    rows = match["rows"]
    return Location(Path(match["path"]), match["part"], None if rows is None else parse_rows(rows))


def _exists(text: str) -> bool:
    try:
        return "\0" not in text and Path(text).exists()
    except OSError:  # a name too long for the file system
        return False


def parse_rows(text: str) -> slice:
    """A range of examples: "a:b" (b left out), ":b", "a:", or "b" for the first b.

    Raises:
        UsageError: not such a range.
    """
    match = re.fullmatch(r"\s*(?:(-?\d+)?\s*:)?\s*(-?\d+)?\s*", text)
    if match is None or not text.strip():
        raise UsageError(f"{text!r} is not a range of examples; write first:last, for example 0:128.")
    first, last = match.groups()
    return slice(int(first) if first else None, int(last) if last else None)


def parse_scale(text: str) -> float:
    """A factor such as 0.5 or 1/255.

    Raises:
        UsageError: not a finite number other than 0.
    """
    # a fraction is exact: 1e999999999 would be written out before anybody could see that it is no scale
    if len(text) > 100 or re.search(r"e[+-]?_?\d{4}", text.lower()):
        raise UsageError(f"{text[:60]!r} is not a scale; write a number such as 0.5 or 1/255.")
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise UsageError(f"{text!r} is not a scale; write a number such as 0.5 or 1/255.") from error
    if not math.isfinite(value) or value == 0:
        raise UsageError(f"{text!r} is not a scale; a finite number other than 0 is needed.")
    return value
