"""Runs that are killed at a chosen call.

Each is a process of its own that writes a new checkpoint over an old one, or where there is none, and kills itself
(SIGKILL) just before its n-th open, write, fsync, rename or read. Then the path is read, as `last inspect` would: the
old checkpoint must be there or the new one, whole and with its own description. One more run must leave nothing behind.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from lastcli.containers import atomic
from tests.fuzz.calls import Calls, counted
from tests.fuzz.outputs import OUTPUTS, state

__all__ = ["die", "kill", "killed"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.fuzz.killing"])


def die() -> None:
    """End this process as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


def _run(kind: str, folder: str, number: int, old: bool, exchanged: bool, made: Any) -> None:
    """In a process of its own: write, and die at call `number` (-1: never)."""
    calls = Calls(number, die, Path(folder))
    if not exchanged:
        atomic.exchange = lambda first, second: False
    with counted(calls):
        OUTPUTS[kind].write(Path(folder), "new", force=old)
    made.value = len(calls.made)


def killed(kind: str, number: int, folder: Path, *, old: bool, exchanged: bool = True) -> tuple[Any, int]:
    """The process that wrote and was killed at call `number`, and the calls it made if it lived."""
    made = _CONTEXT.Value("i", 0)
    process = _CONTEXT.Process(target=_run, args=(kind, str(folder), number, old, exchanged, made))
    process.start()
    process.join()
    return process, made.value


def kill(kind: str, number: int, folder: Path, *, old: bool, exchanged: bool = True) -> tuple[int, str]:
    """One run killed at call `number`: (the calls it made if it lived, what stood there then).

    Raises:
        AssertionError: neither the old nor the new checkpoint is there, or the next run leaves something.
    """
    output = OUTPUTS[kind]
    if old:
        output.write(folder, "old", force=False)
    process, made = killed(kind, number, folder, old=old, exchanged=exchanged)
    if process.exitcode not in (0, -signal.SIGKILL):
        raise AssertionError(f"{kind}, call {number}: the run ended with {process.exitcode}")
    stands = state(folder / output.name)
    if stands not in ("new", "old" if old else None) or (process.exitcode == 0 and stands != "new"):
        raise AssertionError(f"{kind}, call {number}: found {stands}")
    output.write(folder, "old", force=True)
    left = {path.name for path in folder.iterdir()} - {output.name, "x.json"}
    if left or state(folder / output.name) != "old":
        raise AssertionError(f"{kind}, call {number}: the next run left {left}")
    return made, str(stands)
