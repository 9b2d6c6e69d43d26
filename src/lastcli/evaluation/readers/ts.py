"""`.ts` files of the UCR and UEA archives: header lines with `@`, then one series a line.

A line is `v,v,…:v,v,…:label`: the dimensions with colons between them, their values with commas. Read here and not
through aeon or sktime: both bring pandas and more than this format, and aeon numba too, and both put off what is
checked here (missing values, ragged dimensions, labels that the header does not name). Format: the documentation of the
archives at timeseriesclassification.com.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lastcli.containers.inputs import shown
from lastcli.errors import InputError
from lastcli.evaluation.readers.base import Found, Reader, Request, first_line, number_classes, require_regular
from lastcli.evaluation.readers.padding import padded

__all__ = ["READER", "read"]


@dataclass
class _Header:
    """What the lines with `@` say, by key in lower case."""

    said: dict[str, str] = field(default_factory=dict)

    def is_true(self, key: str) -> bool:
        return self.said.get(key, "false").split(" ")[0].lower() == "true"

    @property
    def classes(self) -> list[str]:
        return self.said.get("classlabel", "").split()[1:]


def read(request: Request) -> Found:
    """(n, L, F) series; classes are numbered in the order of their values or of the alphabet."""
    request.refuse_columns("a .ts file")
    path = _member(request)
    require_regular(path)
    where = shown(path, 1000)
    header = _Header()
    series: list[np.ndarray] = []
    labels: list[str | None] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            data = False
            for number, line in enumerate(file, 1):
                line = line.strip()
                if not line or line.startswith("#"):
                    continue
                if not data:
                    data = _header_line(header, line, f"{where}: line {number}")
                    continue
                values, label = _series(line, header, f"{where}: line {number} (example {len(series)})")
                series.append(values)
                labels.append(label)
    except OSError as error:
        raise InputError(f"{where} cannot be read: {first_line(error)}.") from error
    _check_dimensions(header, series, where)
    x, lengths = padded(series, where)
    if lengths is not None and header.is_true("equallength"):
        odd = int(np.argmax(lengths != lengths[0]))
        raise InputError(
            f"{where}: the header says that all series are equally long, but example {odd} has {lengths[odd]} steps "
            f"and those before it {lengths[0]}."
        )
    y, classes = _targets(header, labels, where)
    return Found(x, y, lengths, classes=classes)


def _member(request: Request) -> Path:
    """The file, or the one of a folder that is named for the part: `NAME_TRAIN.ts`."""
    if not request.path.is_dir():
        request.refuse_part("a .ts file")
        return request.path
    files = sorted(request.path.glob("*.ts"))
    wanted = (
        [path for path in files if path.stem.lower().endswith(f"_{request.part}".lower())] if request.part else files
    )
    if len(wanted) != 1:
        parts = ", ".join(f"{request.path.name}/{path.stem.rpartition('_')[2].lower()}" for path in files[:8])
        raise InputError(f"{request.where} holds {len(files)} .ts files; name one of them, or a part: {parts}.")
    return wanted[0]


def _header_line(header: _Header, line: str, where: str) -> bool:
    """Note one line; whether the data begin behind it."""
    if not line.startswith("@"):
        raise InputError(f"{where} is no line of a header, which begin with '@' or '#'; the file is no .ts file.")
    key, _, value = line[1:].partition(" ")
    header.said[key.lower()] = value.strip()
    if key.lower() != "data":
        return False
    if header.is_true("timestamps"):
        raise InputError(f"{where}: series with time stamps are not read; sample them at equal steps.")
    return True


def _series(line: str, header: _Header, where: str) -> tuple[np.ndarray, str | None]:
    """(L, F) of one line, and its label."""
    *dimensions, last = line.split(":")
    label = None
    if header.is_true("classlabel") or header.is_true("targetlabel"):
        label = last.strip()
        if not dimensions or not label:
            raise InputError(f"{where}: the header announces a label, and there is none behind the last colon.")
    else:
        dimensions.append(last)
    columns = [_values(text, where) for text in dimensions]
    for number, column in enumerate(columns):
        if len(column) != len(columns[0]):
            raise InputError(
                f"{where}: dimension {number} has {len(column)} values, dimension 0 has {len(columns[0])}; the "
                "dimensions of a series are equally long."
            )
    return np.stack(columns, axis=1), label


def _values(text: str, where: str) -> np.ndarray:
    values = text.split(",")
    try:
        return np.array(values, dtype=np.float64)
    except ValueError:
        number, value = next((place for place in enumerate(values) if not _is_number(place[1])), (0, values[0]))
    if value.strip() == "?":
        raise InputError(f"{where}: value {number} is missing ('?'); fill missing values first.")
    raise InputError(f"{where}: value {number} is {shown(value, 40)!r} and no number.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_dimensions(header: _Header, series: list[np.ndarray], where: str) -> None:
    if not series:
        raise InputError(f"{where} is an empty split: it holds no series behind @data.")
    said = header.said.get("dimensions") or ("1" if header.is_true("univariate") else None)
    features = int(said) if said is not None and said.isdecimal() and len(said) < 10 else series[0].shape[1]
    for number, values in enumerate(series):
        if values.shape[1] != features:
            raise InputError(f"{where}: example {number} has {values.shape[1]} dimensions; {features} are expected.")


def _targets(header: _Header, labels: list[str | None], where: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if labels[0] is None:
        return None, ()
    if header.is_true("targetlabel"):
        return _values(",".join(map(str, labels)), where)[:, None], ()
    known = header.classes
    numbers, classes = number_classes(np.array(known or labels))
    number_of = dict(zip(known or map(str, labels), numbers.tolist()))
    for example, label in enumerate(labels):
        if label not in number_of:
            raise InputError(
                f"{where}: example {example} has the label {shown(label, 40)!r}, which the header does not name."
            )
    return np.array([number_of[str(label)] for label in labels], np.int64), classes


READER = Reader("ts", read, suffixes=(".ts",), folder=lambda path: any(path.glob("*.ts")), parts="NAME_TRAIN.ts")
