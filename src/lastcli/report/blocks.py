"""What a report is made of, before anybody decides whether it becomes a terminal table, Markdown or CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lastcli.report.text import safe_text

__all__ = ["Block", "Cell", "Column", "Drawing", "Grid", "Line", "grid", "notes_lines"]


class Cell(NamedTuple):
    """One cell. `tone`: good, bad, mark or dim; what it means is also said by the text, never by colour alone."""

    text: str
    tone: str = ""


class Column(NamedTuple):
    """A column. `spare`: 0 is always shown; on a narrow terminal the highest go first."""

    title: str
    right: bool = True
    spare: int = 0


class Grid(NamedTuple):
    """A table. `rule_after`: rows followed by a line."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    rule_after: tuple[int, ...] = ()


class Line(NamedTuple):
    """One sentence."""

    text: str
    tone: str = ""


class Drawing(NamedTuple):
    """Lines of characters for a terminal, each made of cells; no other form of a report shows it."""

    lines: tuple[tuple[Cell, ...], ...]


Block = Grid | Line | Drawing


def grid(
    columns: Sequence[Column], rows: Iterable[Sequence[Cell | str]], title: str = "", rule_after: Sequence[int] = ()
) -> Grid:
    """A `Grid` of cells or plain strings; columns in which every cell is a dash are left out."""
    full = [tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows]
    used = [i for i, column in enumerate(columns) if not full or any(row[i].text not in ("–", "") for row in full)]
    return Grid(
        tuple(columns[i] for i in used),
        tuple(tuple(row[i] for i in used) for row in full),
        title,
        tuple(rule_after),
    )


def notes_lines(notes: Iterable[str]) -> list[Block]:
    """What there is to say besides, one line a note."""
    return [Line(safe_text(note), "dim") for note in notes]
