"""The numbers of a paper in the table of a sweep: a column beside the measured ones, and what has no row below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lastcli.report.blocks import Line
from lastcli.report.measures import metric_text
from lastcli.report.text import name_text, ratio_text, safe_text

if TYPE_CHECKING:
    from lastcli.results import PublishedRow, SweepResult

__all__ = ["PublishedColumn"]

# As many digits as papers print, whatever the number of examples here.
_DIGITS_OF = 1000


class PublishedColumn:
    """The column of one result, empty where its recipe carries no numbers.

    Numbers of the one method that is measured, without a refit, stand alone; others have their method before them.

    Args:
        shown: the methods and refits of the table.
    """

    title = "published"

    def __init__(self, result: SweepResult, shown: Sequence[tuple[str, str]]):
        self._result = result
        self._numbers = result.published
        rows = () if self._numbers is None else self._numbers.rows
        alone = shown[0][0] if len(shown) == 1 and shown[0][1] == "none" else None
        own = tuple(row for row in rows if row.method == alone)
        self._rows, self._named = (own, False) if own else (rows, True)
        self._left = tuple(row for row in rows if not self._stands(row))

    @property
    def full(self) -> str:
        """The cell of the full model."""
        return "–" if self._numbers is None or self._numbers.full is None else self._text(self._numbers.full)

    def cell(self, ratio: float) -> str:
        """The cell of a ratio."""
        found = [row for row in self._rows if row.ratio == ratio]
        texts = [
            f"{name_text(row.method)} {self._text(row.value)}" if self._named else self._text(row.value)
            for row in found
        ]
        return ", ".join(texts) or "–"

    @property
    def width(self) -> int:
        """Characters that the column takes, 0 where there is none."""
        if self._numbers is None:
            return 0
        return max(len(text) for text in (self.title, self.full, *(self.cell(row.ratio) for row in self._rows)))

    @property
    def lines(self) -> list[Line]:
        """Where the numbers are printed, and those at ratios or of methods that are not in the table."""
        if self._numbers is None:
            return []
        text = f"Published: {safe_text(self._numbers.source).rstrip('.')}."
        if self._left:
            text += f" Not in the table: {', '.join(map(self._listed, self._left))}."
        return [Line(text, "dim")]

    def _listed(self, row: PublishedRow) -> str:
        return f"{name_text(row.method)} {self._text(row.value)} at {ratio_text(row.ratio)}"

    def _stands(self, row: PublishedRow) -> bool:
        if row.ratio == 0 and self._numbers is not None and row.value == self._numbers.full:
            return True  # nothing is pruned there, so this is the line of the full model
        return row in self._rows and any(row.ratio == other.ratio > 0 for other in self._result.rows)

    def _text(self, value: float) -> str:
        return metric_text(self._result.metric, value, _DIGITS_OF)
