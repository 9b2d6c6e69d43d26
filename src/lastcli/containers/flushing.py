"""A large file put on the disk while it is still being written, so that its end need not wait for all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

__all__ = ["EARLY", "Flushing", "flushing"]

EARLY = 2**26
"""Bytes that are written before they are put on the disk; a smaller file is flushed once, at its end."""


class Flushing:
    """One thread that flushes what has been written so far, of a file that is written in order."""

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="last-flush")
        self._last: Future[None] | None = None
        self._count = 0

    def wrote(self, count: int) -> None:
        """So many bytes more were written.

        Raises:
            OSError: earlier ones could not be put on the disk; nobody else will be told.
        """
        self._count += count
        if self._count >= EARLY and (self._last is None or self._last.done()):
            self.wait()
            self._count = 0
            self._last = self._pool.submit(os.fsync, self._descriptor)

    def wait(self) -> None:
        """Until the last flush that was begun is done.

        Raises:
            OSError: as `wrote`.
        """
        if self._last is not None:
            self._last.result()

    def close(self) -> None:
        """End the thread; the file may be closed then."""
        self._pool.shutdown()


@contextmanager
def flushing(file: BinaryIO) -> Iterator[Flushing]:
    """A `Flushing` that is over at the end.

    Raises:
        OSError: bytes could not be put on the disk.
    """
    found = Flushing(file)
    try:
        yield found
        found.wait()
    finally:
        found.close()
