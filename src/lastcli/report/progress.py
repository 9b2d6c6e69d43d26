"""Progress on stderr, for whatever takes longer than a second.

On a terminal a bar appears after one second and is gone at the end. Elsewhere (a log, a terminal that cannot move its
cursor) a plain line is written now and then, the first only after ten seconds. Quiet means nothing.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import IO, TYPE_CHECKING

from lastcli.report.text import safe_text, to_ascii, wants_ascii

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Progress"]

FIRST_BAR = 1.0
FIRST_LINE = 10.0


class Progress:
    """A context manager that is told how much was done.

    Args:
        label: what is going on.
        total: how much there is to do; None where that is not known.
        quiet: show nothing.
        stream: where to; stderr by default.
    """

    def __init__(
        self, label: str, total: int | None = None, *, quiet: bool = False, stream: IO[str] | None = None
    ) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.label = to_ascii(safe_text(label)) if wants_ascii(self.stream) else safe_text(label)
        self.said = self.label
        self.total = total
        self.done = 0
        self.quiet = quiet or self.stream.closed
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._start = time.monotonic()
        self._next = self._start + (FIRST_BAR if self._moves() else FIRST_LINE)

    def _moves(self) -> bool:
        return not self.quiet and self.stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")

    def advance(self, n: int = 1) -> None:
        """`n` more are done."""
        self.done += n
        if self.quiet:
            return
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, n)
        elif time.monotonic() >= self._next:
            self._show()

    def note(self, text: str) -> None:
        """Say something behind the label from now on."""
        self.said = f"{self.label}, {to_ascii(text) if wants_ascii(self.stream) else text}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=self.said)

    def _show(self) -> None:
        if not self._moves():
            now = time.monotonic()
            share = f"{100 * self.done / self.total:.0f}%" if self.total else str(self.done)
            self._write(f"{self.said}: {share} after {now - self._start:.0f} s\n")
            # lines become rarer as the run becomes longer
            self._next = now + max(FIRST_LINE, (now - self._start) / 2)
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = [
            TextColumn("{task.description}", markup=False),
            *([] if wants_ascii(self.stream) else [BarColumn()]),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
        ]
        console = Console(file=self.stream, markup=False, highlight=False, emoji=False)
        self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=5)
        self._task = self._bar.add_task(self.said, total=self.total, completed=self.done)
        self._bar.start()

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):
            self.quiet = True  # nobody reads it any more; the work goes on

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
