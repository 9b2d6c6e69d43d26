"""A time to spend: whatever reports its progress is stopped when the time is over.

Clocks differ, and processes that stop at different places would wait for each other for ever. So of several processes
the first one's clock counts, and it is looked at where a step begins, never within one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from lastcli.parallel import processes
from lastcli.verbs.shared.session import Session

__all__ = ["Budget", "BudgetSpentError"]


class BudgetSpentError(Exception):
    """The time is over; never shown, always caught by whoever set the budget."""


class Budget:
    """Seconds from now on, or no end.

    Args:
        seconds: None for no end.
        clock: seconds that pass evenly.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds
        self._over = False

    @property
    def spent(self) -> bool:
        """Whether the time is over; all processes ask together."""
        return processes.first_only(lambda: self._over or (self._end is not None and self._clock() >= self._end))

    def close(self) -> None:
        """The time is over, and nothing is stopped any more: what is left is to finish."""
        self._over, self._end = True, None

    def check(self) -> None:
        """Stop here if the time is over.

        Raises:
            BudgetSpentError: it is.
        """
        if self._end is not None and self.spent:
            raise BudgetSpentError

    @contextmanager
    def watching(self, session: Session) -> Iterator[None]:
        """Every step that reports its progress to this session looks at the clock."""
        before = session.progress
        if self._end is not None:
            session.progress = lambda label, total: self._bar(before, label, total)
        try:
            yield
        finally:
            session.progress = before

    @contextmanager
    def _bar(self, progress: Callable[..., Any] | None, label: str, total: int) -> Iterator[_Watching]:
        if processes.running() and processes.count() > 1:  # not where each does other work, alone
            self.check()
        with nullcontext() if progress is None else progress(label, total) as bar:
            yield _Watching(self, bar)


class _Watching:
    def __init__(self, budget: Budget, bar: Any):
        self._budget, self._bar = budget, bar

    def advance(self, n: int) -> None:
        """`n` more are done."""
        if not processes.running():
            self._budget.check()
        if self._bar is not None:
            self._bar.advance(n)
