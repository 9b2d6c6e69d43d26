"""Every call of this process that changes or reads a file, counted, so that the n-th can be made to fail or to kill."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lastcli.containers import atomic

__all__ = ["Calls", "counted"]

_NAMES = ("open", "mkdir", "rmdir", "unlink", "rename", "replace", "link", "chmod", "fsync", "preadv")


class Calls:
    """Counts calls; at the chosen one `act` runs first (it raises or kills).

    Attributes:
        made: names of the calls so far.
    """

    def __init__(self, chosen: int = -1, act: Callable[[], None] = lambda: None, below: Path | None = None) -> None:
        self.made: list[str] = []
        self._chosen, self._act = chosen, act
        self._below = None if below is None else str(below)

    def note(self, name: str) -> None:
        """One call is about to be made."""
        self.made.append(name)
        if len(self.made) - 1 == self._chosen:
            self._act()

    def concerns(self, arguments: tuple[Any, ...]) -> bool:
        """Whether a call is about the files under test and not about Python's own."""
        first = arguments[0] if arguments else None
        if self._below is None or isinstance(first, int):
            return True
        return isinstance(first, str | os.PathLike) and os.fspath(first).startswith(self._below)


@contextlib.contextmanager
def counted(calls: Calls) -> Iterator[None]:
    """Within, every call goes through `calls`."""
    plain = {name: getattr(os, name) for name in _NAMES}
    opened, exchanged = io.open, atomic.exchange

    def patched(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if calls.concerns(arguments):
                calls.note(name)
            return plain[name](*arguments, **options)

        return call

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            calls.note("write")
            return super().write(data)

        def readinto(self, buffer: Any) -> int:
            calls.note("read")
            return super().readinto(buffer)

    def open_counted(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not calls.concerns((path,)) or isinstance(path, int):
            return opened(path, mode, *arguments, **options)
        calls.note("open")
        raw = Raw(os.fspath(path), mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedReader(raw) if raw.readable() else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding=options.get("encoding") or "utf-8")

    def exchange(first: Path, second: Path) -> bool:
        calls.note("exchange")
        return exchanged(first, second)

    try:
        for name in _NAMES:
            setattr(os, name, patched(name))
        io.open = open_counted
        atomic.exchange = exchange
        yield
    finally:
        for name, function in plain.items():
            setattr(os, name, function)
        io.open, atomic.exchange = opened, exchanged
