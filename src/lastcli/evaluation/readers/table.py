"""From named columns (CSV, Parquet, Arrow) to inputs, labels and lengths.

Three shapes of a table:

1. A column of lists (`x`, `input_ids`): a row is an example; (L,) or (L, F) each, padded where lengths differ.
2. A column that says which series a row belongs to (`series`, `id`): a row is a step, the other columns are features.
   A label column that is constant in every series is a label of the series, else it is a target for each step.
3. Neither: a row is an example, and the columns are its steps from left to right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lastcli.containers.inputs import shown
from lastcli.errors import InputError
from lastcli.evaluation.readers.base import Found, Request, number_classes
from lastcli.evaluation.readers.padding import padded
from lastcli.mappings import suggestion

__all__ = ["Column", "from_table"]

_KNOWN = {
    "x": ("x", "input_ids", "inputs", "sequence"),
    "y": ("y", "label", "labels", "target", "class"),
    "lengths": ("lengths", "length"),
    "mask": ("mask", "attention_mask"),
    "series": ("series", "series_id", "id", "case_id"),
}
_TIME = ("time", "step", "t", "timestamp")
"""Columns that order the steps; rows are taken in the order of the file, which must be theirs."""


@dataclass(frozen=True, eq=False)
class Column:
    """One column: `values` (rows,) of numbers or text, or an object array of one array a row.

    Attributes:
        values: as above.
        classes: names of the numbers in it, where the format knows them.
    """

    values: np.ndarray
    classes: tuple[str, ...] = ()

    @property
    def lists(self) -> bool:
        """Whether a row holds an array."""
        return self.values.dtype == object

    @property
    def text(self) -> bool:
        """Whether a row holds text."""
        return self.values.dtype.kind in "US"


def from_table(table: Mapping[str, Column], request: Request) -> Found:
    """Arrays of a table, as the module says.

    Raises:
        InputError: a column is missing or of the wrong kind; the first wrong row is named.
    """
    where = request.where
    roles = _roles(table, request)
    labels = roles.get("y", ())
    y, classes = _labels(table, labels, where)
    lists = [name for name in roles.get("x", ()) if table[name].lists]
    if lists:
        if len(roles["x"]) > 1:
            raise InputError(f"{where}: the columns {', '.join(roles['x'])} cannot be inputs together; name one list.")
        x, lengths = padded(list(table[lists[0]].values), where)
        return Found(x, y, _one(table, roles, "lengths", lengths), _mask(table, roles, where), classes=classes)
    if "series" in roles:
        return _long(table, roles, y, classes, where)
    inputs = roles["x"] if "x" in roles else _rest(table, roles)
    x = _matrix(table, inputs, where)
    return Found(x, y, _one(table, roles, "lengths", None), _mask(table, roles, where), classes=classes)


def _roles(table: Mapping[str, Column], request: Request) -> dict[str, tuple[str, ...]]:
    """Columns by role: those the user named, else those whose name says it."""
    for role, names in request.columns.items():
        for name in names:
            if name not in table:
                raise InputError(
                    f"{request.where} has no column {name!r}, which --columns names as {role}."
                    f"{suggestion(name, list(table)[:50])}"
                )
    found = dict(request.columns)
    taken = {name for names in found.values() for name in names}
    lower = {name.lower(): name for name in reversed(list(table))}
    for role, known in _KNOWN.items():
        column = next((lower[k] for k in known if k in lower and lower[k] not in taken), None)
        # a column `x` of plain numbers beside others is one of several features, not all of the input
        if role not in found and column is not None and (role != "x" or table[column].lists):
            found[role] = (column,)
    return found


def _rest(table: Mapping[str, Column], roles: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    taken = {name for names in roles.values() for name in names}
    return tuple(name for name in table if name not in taken and name.lower() not in _TIME)


def _matrix(table: Mapping[str, Column], names: tuple[str, ...], where: str) -> np.ndarray:
    """(rows, columns) of number columns."""
    if not names:
        raise InputError(f"{where} has no columns of inputs (it has {', '.join(map(shown, list(table)[:8]))}).")
    for name in names:
        if table[name].lists or table[name].text:
            kind = "lists" if table[name].lists else f"text ({shown(table[name].values[0])!r} in its first row)"
            raise InputError(
                f"{where}: column {name!r} holds {kind}, and inputs are numbers; say which columns are what with "
                "--columns x=NAME,x=NAME,y=NAME."
            )
    return np.stack([table[name].values for name in names], axis=1)


def _labels(
    table: Mapping[str, Column], names: tuple[str, ...], where: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if not names:
        return None, ()
    if len(names) > 1:
        return _matrix(table, names, where), ()
    column = table[names[0]]
    if column.lists:
        shapes = [row.shape for row in column.values]
        if len(set(shapes)) > 1:
            row = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
            raise InputError(
                f"{where}: column {names[0]!r} has shape {shapes[row]} in row {row}, but {shapes[0]} in row 0; "
                "targets must be of one shape."
            )
        return np.stack(list(column.values)), column.classes
    if column.text:
        return number_classes(column.values)
    return column.values, column.classes


def _one(table: Mapping[str, Column], roles: Mapping[str, tuple[str, ...]], role: str, otherwise: Any) -> Any:
    return table[roles[role][0]].values if role in roles else otherwise


def _mask(table: Mapping[str, Column], roles: Mapping[str, tuple[str, ...]], where: str) -> np.ndarray | None:
    if "mask" not in roles:
        return None
    column = table[roles["mask"][0]]
    return padded(list(column.values), where, "the mask of example")[0] if column.lists else None


def _long(
    table: Mapping[str, Column],
    roles: Mapping[str, tuple[str, ...]],
    y: np.ndarray | None,
    classes: tuple[str, ...],
    where: str,
) -> Found:
    """A row is a step: series in the order of their first rows, steps in the order of the file."""
    series = table[roles["series"][0]].values
    _, first, number = np.unique(series, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[number.reshape(-1)]
    order = np.argsort(place, kind="stable")
    cuts = np.cumsum(np.bincount(place))[:-1]
    _ascending(table, order, place, where)
    inputs = roles["x"] if "x" in roles else _rest(table, roles)
    x, lengths = padded(np.split(_matrix(table, inputs, where)[order], cuts), where, "series")
    if y is None:
        return Found(x, lengths=lengths)
    parts = np.split(y[order], cuts)
    if all((part == part[0]).all() for part in parts):
        return Found(x, np.stack([part[0] for part in parts]), lengths, classes=classes)
    if classes:
        wrong = next(i for i, part in enumerate(parts) if not (part == part[0]).all())
        raise InputError(f"{where}: series {shown(series[order][[0, *cuts][wrong]])} has several labels.")
    targets, _ = padded(parts, where)
    if targets.dtype.kind == "f" and targets.ndim == 2:
        targets = targets[..., None]
    return Found(x, targets, lengths)


def _ascending(table: Mapping[str, Column], order: np.ndarray, place: np.ndarray, where: str) -> None:
    for name, column in table.items():
        if name.lower() in _TIME and column.values.dtype.kind in "iuf":
            back = (np.diff(column.values[order]) < 0) & (np.diff(place[order]) == 0)
            if back.any():
                row = int(order[int(np.argmax(back)) + 1])
                raise InputError(f"{where}: {name!r} goes back at row {row}; sort the steps of every series by time.")
