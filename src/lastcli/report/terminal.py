"""Blocks as Rich tables: as wide as their content in a pipe, never wider than the terminal on one.

On a narrow terminal the columns that can be spared go first (and the report says so); where the rest still does not
fit, every row becomes a short list of its cells.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from typing import IO, TYPE_CHECKING

from lastcli.report.blocks import Block, Drawing, Grid, Line
from lastcli.report.text import to_ascii, wants_ascii

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["as_text", "print_text", "terminal_width"]

_STYLES = {"good": "green", "bad": "bold red", "mark": "bold", "dim": "dim", "": ""}
_UNLIMITED = 100_000
_ASCII_BOX = "    \n    \n -- \n    \n -- \n -- \n    \n    \n"
_UNICODE_BOX = "    \n    \n ── \n    \n ── \n ── \n    \n    \n"


def print_text(blocks: Sequence[Block], stream: IO[str]) -> str:
    """The blocks as `stream` should get them: for a terminal in its width and colours, else as wide as they are."""
    return _rendered(blocks, terminal_width(stream), wants_ascii(stream), stream)


def as_text(blocks: Sequence[Block], width: int | None = None, ascii_only: bool = False) -> str:
    """The blocks as plain text, without colours; `width` None for as wide as they are."""
    return _rendered(blocks, width, ascii_only, None)


def terminal_width(stream: IO[str]) -> int | None:
    """The columns of the terminal behind `stream`, None where there is none."""
    if not stream.isatty():
        return None
    from rich.console import Console

    return max(Console(file=stream).width, 1)


def _rendered(blocks: Sequence[Block], width: int | None, ascii_only: bool, stream: IO[str] | None) -> str:
    from rich.console import Console

    buffer = io.StringIO()
    colours = Console(file=stream).color_system if stream is not None and stream.isatty() else None
    console = Console(
        file=buffer,
        width=width or _UNLIMITED,
        force_terminal=colours is not None,
        color_system=colours,  # type: ignore[arg-type]
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    before: Block | None = None
    for block in blocks:
        if before is not None and not (isinstance(before, Line) and isinstance(block, Line)):
            console.print()
        before = block
        if isinstance(block, Line):
            console.print(_text(block.text, block.tone, ascii_only), soft_wrap=width is None)
        elif isinstance(block, Drawing):
            for line in block.lines:
                runs = [(tone, "".join(c.text for c in cells)) for tone, cells in groupby(line, lambda c: c.tone)]
                console.print(*(_text(text, tone, ascii_only) for tone, text in runs), sep="", soft_wrap=True)
        else:
            _print_grid(console, block, width, ascii_only)
    return "".join(line.rstrip() + "\n" for line in buffer.getvalue().splitlines())


def _text(text: str, tone: str, ascii_only: bool) -> object:
    from rich.text import Text

    return Text(to_ascii(text) if ascii_only else text, style=_STYLES[tone], overflow="fold")


def _print_grid(console: Console, grid: Grid, width: int | None, ascii_only: bool) -> None:
    if grid.title:
        console.print(_text(grid.title, "mark", ascii_only), soft_wrap=width is None)
    shown = list(range(len(grid.columns)))
    table = _table(grid, shown, ascii_only)
    while width is not None and _widest(console, table) > width:
        spare = max(shown, key=lambda i: (grid.columns[i].spare, i))
        if grid.columns[spare].spare == 0:
            break
        shown.remove(spare)
        table = _table(grid, shown, ascii_only)
    if width is not None and _narrowest(console, table) > width:
        _print_stacked(console, grid, ascii_only)
        return
    console.print(table)
    hidden = [column.title for i, column in enumerate(grid.columns) if i not in shown and column.title]
    if hidden:
        console.print(_text(f"Not shown in {width} columns: {', '.join(hidden)}.", "dim", ascii_only))


def _table(grid: Grid, shown: Sequence[int], ascii_only: bool) -> Table:
    from rich.box import Box
    from rich.cells import cell_len
    from rich.table import Table

    heads = any(grid.columns[i].title for i in shown)
    box = Box(_ASCII_BOX if ascii_only else _UNICODE_BOX, ascii=ascii_only)
    table = Table(box=box if heads else None, show_header=heads, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i in shown:
        column = grid.columns[i]
        title = to_ascii(column.title) if ascii_only else column.title
        cells = [to_ascii(row[i].text) if ascii_only else row[i].text for row in grid.rows]
        longest = max(cell_len(text) for text in [title, *cells])
        if column.right:
            table.add_column(title, justify="right", no_wrap=True, min_width=longest)
        else:  # a name may be folded, but not into slivers
            table.add_column(title, justify="left", overflow="fold", min_width=min(longest, 12))
    for number, row in enumerate(grid.rows):
        texts = [_text(row[i].text, row[i].tone, ascii_only) for i in shown]
        table.add_row(*texts, end_section=number in grid.rule_after)  # type: ignore[arg-type]
    return table


def _widest(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update(max_width=_UNLIMITED)).maximum


def _narrowest(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update(max_width=_UNLIMITED)).minimum


def _print_stacked(console: Console, grid: Grid, ascii_only: bool) -> None:
    for row in grid.rows:
        first = True
        for column, cell in zip(grid.columns, row, strict=True):
            if cell.text in ("", "–", "→"):
                continue
            label = f"{column.title}: " if column.title else ""
            indent = "" if first else "  "
            console.print(_text(f"{indent}{label}{cell.text.strip()}", cell.tone, ascii_only))
            first = False
