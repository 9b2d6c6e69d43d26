"""What a reader of data is, what it is asked for and what it gives; guarded opening of data files."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.inputs import RandomAccess, is_folder, shown
from lastcli.errors import InputError, UsageError

__all__ = [
    "SUSPICIOUS_BYTES",
    "SUSPICIOUS_RATIO",
    "DataFile",
    "Found",
    "Reader",
    "Request",
    "check_shapes",
    "first_line",
    "missing_library",
    "number_classes",
    "read_text",
    "require_regular",
]

SUSPICIOUS_RATIO = 250
"""Packed data that grows more than this is refused: deflate cannot do better than 1032, honest data rarely a tenth."""
SUSPICIOUS_BYTES = 64 << 20


@dataclass(frozen=True)
class Request:
    """What a reader is asked for.

    Attributes:
        path: the file or folder.
        part: which of several splits in it, None where none is named.
        rows: the examples meant. A reader may take them by itself (`Found.taken`), or leave it to the caller.
        columns: names that the user gave, by role (`x`, `y`, `lengths`, `mask`, `series`).
        beside: the folder of the model, where its tokenizer and vocabulary lie.
    """

    path: Path
    part: str | None = None
    rows: slice | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    beside: Callable[[], Path] | None = None

    @property
    def where(self) -> str:
        """The path as it may be printed."""
        return shown(self.path, 1000)

    def bounds(self, count: int) -> tuple[int, int]:
        """First and last (exclusive) of the examples meant.

        Raises:
            InputError: none of `count` are.
        """
        if self.rows is None:
            return 0, count
        start, stop, _ = self.rows.indices(count)
        if stop <= start:
            asked = f"{self.rows.start or 0}:{'' if self.rows.stop is None else self.rows.stop}"
            raise InputError(f"{self.where} has {count} examples; none are left of {asked}.")
        return start, stop

    def array_name(self, role: str) -> str:
        """The name of an array by its role: what the user said, else the role, `x_train` for the part `train`."""
        named = self.columns.get(role)
        if named is not None:
            if len(named) > 1:
                raise UsageError(
                    f"--columns names {len(named)} arrays as {role}; {self.where} holds one for each role."
                )
            return named[0]
        return f"{role}_{self.part}" if self.part else role

    def refuse_part(self, kind: str) -> None:
        """For formats whose files hold one split.

        Raises:
            InputError: there is no such file.
            UsageError: a part was named.
        """
        if not is_folder(self.path):
            require_regular(self.path)
        if self.part is not None:
            raise UsageError(f"{self.where} is {kind}, which holds one split and no part {self.part!r}.")

    def refuse_columns(self, kind: str) -> None:
        """For formats without names.

        Raises:
            UsageError: columns were named.
        """
        if self.columns:
            raise UsageError(f"{self.where} is {kind}, which has no named columns; leave --columns out.")


@dataclass(frozen=True, eq=False)
class Found:
    """What a reader gives: arrays with the examples along the first axis, nothing of them checked against a model.

    Attributes:
        x: (n, L, F), (n, L), (n, 2, L, F) or (n, 2, L); an array or a `StoredArray`.
        y: labels or targets, or None.
        lengths: (n,) or (n, 2) true lengths, or None.
        mask: 1 for steps and 0 for padding, shaped as x without features, instead of lengths.
        scale, mean, std: what the data says of its own normalisation.
        classes: the names of the classes, in the order of their numbers.
        taken: whether only the rows asked for are in it.
    """

    x: Any
    y: Any = None
    lengths: Any = None
    mask: Any = None
    scale: Any = None
    mean: Any = None
    std: Any = None
    classes: tuple[str, ...] = ()
    taken: bool = False


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes:
        name: for people and tables.
        read: from a request to arrays.
        suffixes: of its files, lower case.
        begins: first bytes of its files, for files with other names.
        folder: whether a folder holds data of this kind; None where folders never do.
        extra: the optional dependencies of `lastcli` that it needs.
        parts: what may stand behind `FILE:` or `FOLDER/`, for people.
    """

    name: str
    read: Callable[[Request], Found]
    suffixes: tuple[str, ...] = ()
    begins: tuple[bytes, ...] = ()
    folder: Callable[[Path], bool] | None = None
    extra: str | None = None
    parts: str = ""


class DataFile(RandomAccess):
    """A regular file of data, read by position; closed when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        """Open.

        Raises:
            InputError: missing, unreadable, a folder, a pipe or a device.
        """
        self._descriptor = -1
        require_regular(path)
        super().__init__(path)

    def __del__(self) -> None:
        self.close()


def require_regular(path: Path) -> int:
    """The size of a file in bytes; opening a FIFO would wait for ever.

    Raises:
        InputError: missing, unreadable, a folder, a pipe or a device.
    """
    where = shown(path, 1000)
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"There is no data file {where}.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{where} cannot be read: {first_line(error)}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{where} is not a regular file that data could be read from.")
    return status.st_size


def read_text(path: Path, limit: int = 1 << 30) -> str:
    """The text of a UTF-8 file.

    Raises:
        InputError: missing, not text, or longer than `limit` bytes.
    """
    size = require_regular(path)
    if size > limit:
        raise InputError(f"{shown(path, 1000)} has {size:,} bytes of text; at most {limit:,} are read, give a part.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{shown(path, 1000)} could not be read as UTF-8 text ({first_line(error)}).") from error


def check_shapes(where: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Whether arrays can be one split, by their shapes alone.

    Raises:
        InputError: x has no time axis or is empty, or another array has another number of examples.
    """
    shape = shapes["x"]
    if not 2 <= len(shape) <= 4:
        raise InputError(f"{where}: x has shape {shape}; (n, L, F) or (n, L) is needed.")
    if 0 in shape:
        raise InputError(f"{where} is an empty split: x has shape {shape}.")
    for key, other in shapes.items():
        if not other or other[0] != shape[0]:
            raise InputError(f"{where}: x has {shape[0]} examples, but {key} has shape {other}.")


def number_classes(texts: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers for classes given as text: in the order of their values where all are numbers, else of the alphabet."""
    names, numbers = np.unique(texts, return_inverse=True)
    order = np.argsort([_value(name) for name in names], kind="stable") if _numeric(names) else np.arange(len(names))
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    return place[numbers.reshape(-1)], tuple(str(names[i]) for i in order)


def _value(text: str) -> float:
    return float(text)


def _numeric(names: np.ndarray) -> bool:
    try:
        return all(np.isfinite(_value(name)) for name in names)
    except ValueError:
        return False


def missing_library(path: Path, what: str, library: str, extra: str) -> UsageError:
    """The error for a library that is optional and not there."""
    return UsageError(f"{shown(path, 1000)}: {what} needs the {library} library: pip install 'lastcli[{extra}]'.")


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a sentence."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]
