"""A file that one run writes line by line and the next goes on from (`--resume FILE`): opened, made and locked."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lastcli.containers.inputs import shown
from lastcli.errors import OutputError

__all__ = ["open_journal"]


@contextlib.contextmanager
def open_journal(path: Path, what: str) -> Iterator[BinaryIO]:
    """The file at `path` to read and append to, for this run alone.

    Args:
        what: what it holds, in the plural, for the sentence that says why it cannot be kept there.

    Raises:
        OutputError: it cannot be written, or another run is writing it.
    """
    where = shown(path, 1000)
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
    except OSError as error:
        raise OutputError(f"{where}: {what} cannot be kept there ({error.strerror}).") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{where} is being written by another run; wait for it.") from error
        except OSError:
            pass  # no locks on this file system
        yield file
