"""CSV with the names of the columns in its first line, one file or a folder with one file for each series."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lastcli.containers.inputs import shown
from lastcli.errors import InputError
from lastcli.evaluation.readers.base import Found, Reader, Request, first_line, require_regular
from lastcli.evaluation.readers.table import Column, from_table

__all__ = ["READER", "read"]

_LABELS = "labels.csv"
_CHUNK = 4096


def read(request: Request) -> Found:
    """See `Reader.read`."""
    if request.path.is_dir():
        return _folder(request)
    request.refuse_part("a CSV file")
    return from_table({name: Column(values) for name, values in _table(request.path).items()}, request)


def _folder(request: Request) -> Found:
    """Every file a series, in the order of their names; `labels.csv` has the columns `file` and `y`."""
    folder = request.path / request.part if request.part else request.path
    files = sorted(path for path in folder.glob("*.csv") if path.name != _LABELS)
    if not files:
        parts = sorted({path.parent.name for path in folder.glob("*/*.csv")})
        named = "".join(f", {folder.name}/{shown(part)}" for part in parts[:8])
        raise InputError(f"{shown(folder, 1000)} holds no .csv files{named and f'; name a part{named}'}.")
    tables = [_table(path) for path in files]
    for path, table in zip(files, tables):
        if list(table) != list(tables[0]):
            raise InputError(
                f"{shown(path, 1000)} has the columns {', '.join(map(shown, table))}, but {files[0].name} has "
                f"{', '.join(map(shown, tables[0]))}; the series of a folder have the same columns."
            )
    steps = [len(next(iter(table.values()))) for table in tables]
    joined = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    joined["series"] = np.repeat([path.name for path in files], steps)
    if (folder / _LABELS).is_file():
        joined["y"] = np.repeat(_labels(folder / _LABELS, files), steps)
    return from_table({name: Column(values) for name, values in joined.items()}, request)


def _labels(path: Path, files: list[Path]) -> np.ndarray:
    table = _table(path)
    if "file" not in table or "y" not in table:
        raise InputError(
            f"{shown(path, 1000)} has the columns {', '.join(map(shown, table))}; 'file' and 'y' are needed."
        )
    label = dict(zip(table["file"].astype(str), table["y"]))
    for file in files:
        if file.name not in label:
            raise InputError(f"{shown(path, 1000)} has no row for {file.name}.")
    return np.array([label[file.name] for file in files])


def _table(path: Path) -> dict[str, np.ndarray]:
    """Columns by name: whole numbers where all are, else numbers, else text."""
    require_regular(path)
    where = shown(path, 1000)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            names = [name.strip() for name in next(rows, [])]
            _check_names(names, where)
            blocks = [_block(block, names, start, where) for start, block in _blocks(rows)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where} is no CSV file ({first_line(error)}).") from error
    if not blocks:
        raise InputError(f"{where} is an empty split: it has no rows below the names of its columns.")
    return {name: _joined([block[i] for block in blocks]) for i, name in enumerate(names)}


def _check_names(names: list[str], where: str) -> None:
    if not names:
        raise InputError(f"{where} is an empty file.")
    if len(set(names)) < len(names) or "" in names:
        twice = next((name for name in names if name == "" or names.count(name) > 1), "")
        fault = f"names the column {shown(twice)!r} twice" if twice else "has a column without a name"
        raise InputError(f"{where}: its first line {fault}.")
    try:
        np.array(names).astype(np.float64)
    except ValueError:
        return
    raise InputError(f"{where}: its first line holds numbers; the names of the columns belong there.")


def _blocks(rows: Iterator[list[str]]) -> Iterator[tuple[int, list[list[str]]]]:
    start, block = 0, []
    for row in rows:
        if row:
            block.append(row)
        if len(block) == _CHUNK:
            yield start, block
            start, block = start + _CHUNK, []
    if block:
        yield start, block


def _block(rows: list[list[str]], names: list[str], start: int, where: str) -> list[np.ndarray]:
    for number, row in enumerate(rows, start):
        if len(row) != len(names):
            raise InputError(f"{where}: row {number} has {len(row)} cells, but there are {len(names)} columns.")
        if "" in row:
            raise InputError(f"{where}: row {number} has no value in column {shown(names[row.index('')])!r}.")
    return [_numbers(np.array(cells)) for cells in zip(*rows)]


def _numbers(cells: np.ndarray) -> np.ndarray:
    for kind in (np.int64, np.float64):
        try:
            return cells.astype(kind)
        except (ValueError, OverflowError):
            continue
    return cells


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    if any(part.dtype.kind == "U" for part in parts) and any(part.dtype.kind != "U" for part in parts):
        parts = [part.astype(str) for part in parts]
    return np.concatenate(parts)


READER = Reader(
    "CSV",
    read,
    suffixes=(".csv",),
    folder=lambda path: any(path.glob("*.csv")) or any(path.glob("*/*.csv")),
    parts="folder train/ of series",
)
