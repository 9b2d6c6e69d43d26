"""The blocks of the terminal as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from lastcli.report.blocks import Block, Cell, Grid, Line
from lastcli.report.html.markup import Markup, element, joined

__all__ = ["blocks_markup", "grid_markup"]


def blocks_markup(blocks: Sequence[Block]) -> Markup:
    """Tables and sentences, in their order; other blocks are pictures of a terminal and left out."""
    parts = []
    for block in blocks:
        if isinstance(block, Grid):
            parts.append(grid_markup(block))
        elif isinstance(block, Line):
            parts.append(element("p", block.text, class_=block.tone or None))
    return joined(parts)


def grid_markup(grid: Grid) -> Markup:
    """One table, in a box that scrolls where it is too wide."""
    right = [column.right for column in grid.columns]
    parts = [element("caption", grid.title)] if grid.title else []
    if any(column.title for column in grid.columns):
        head = [
            element("th", column.title, scope="col", class_="right" if column.right else None)
            for column in grid.columns
        ]
        parts.append(element("thead", element("tr", *head)))
    rows = []
    for place, row in enumerate(grid.rows):
        cells = [_cell(cell, on_right) for cell, on_right in zip(row, right)]
        rows.append(element("tr", *cells, class_="ruled" if place in grid.rule_after else None))
    return element("div", element("table", *parts, element("tbody", *rows)), class_="scroll", tabindex=0)


def _cell(cell: Cell, right: bool) -> Markup:
    classes = " ".join(["right"] * right + [cell.tone] * bool(cell.tone))
    return element("td", cell.text.strip(), class_=classes or None)
