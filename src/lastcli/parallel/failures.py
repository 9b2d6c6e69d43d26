"""How the processes of a run end together: one that fails tells the others, and all give the same exit code."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import json
import os
import sys
import threading
import time
from typing import NamedTuple

from lastcli.parallel import processes

__all__ = ["Failure", "end_with", "failure", "watch"]

_FAILED, _ENDED = "last/failed/", "last/ended/"
_POLL_SECONDS = 0.5
# The longest that a process waits for the others to notice, and for its own work to stop.
_GRACE_SECONDS = 5.0
NOTICE_SECONDS = 2.0
"""Within these, the word of a process that failed has reached all others."""


class Failure(NamedTuple):
    """What ended another process.

    Attributes:
        process: its number.
        code: its exit code.
        sentence: what it had to say.
    """

    process: int
    code: int
    sentence: str


_FOUND: list[Failure] = []
_STOPPED = threading.Event()


def watch() -> None:
    """From here on, the failure of another process interrupts this one (KeyboardInterrupt; see `failure`).

    One that waits inside JAX cannot be interrupted; it is ended after a few seconds with the same exit code.
    """
    if not processes.running() or _STOPPED.is_set():
        return
    thread = threading.Thread(target=_look, name="last-watch", daemon=True)
    # before JAX leaves the others, which it registered earlier
    atexit.register(_stop, thread)
    thread.start()


def failure(wait: float = 0.0) -> Failure | None:
    """The failure of another process, if there was one; `wait` is how long to wait for its word, in seconds."""
    until = time.monotonic() + wait
    while not _FOUND and time.monotonic() < until:
        time.sleep(_POLL_SECONDS / 5)
    return _FOUND[0] if _FOUND else None


def end_with(sentence: str, code: int) -> None:
    """Tell the others, wait until they know, and end this process: nobody would meet the others' goodbye any more."""
    _STOPPED.set()
    client, mine = processes.client(), processes.index()
    with contextlib.suppress(Exception):  # the service may be gone; ending is all that is left
        client.key_value_set(f"{_FAILED}{mine}", json.dumps([int(code), sentence]))
        client.key_value_set(f"{_ENDED}{mine}", "")
        # process 0 keeps the service, which the others need to hear of it
        until = time.monotonic() + _GRACE_SECONDS + 2
        others = processes.count_all() - 1 if mine == 0 else 0
        while time.monotonic() < until and len(client.key_value_dir_get(_ENDED)) <= others:
            time.sleep(_POLL_SECONDS / 5)
    _leave(code)


def _look() -> None:
    client, mine = processes.client(), processes.index()
    while not _STOPPED.wait(_POLL_SECONDS):
        try:
            words = client.key_value_dir_get(_FAILED)
        except Exception:  # the service is gone: JAX itself ends this process
            return
        others = {int(key.rpartition("/")[2]): text for key, text in words}
        others.pop(mine, None)
        if others and not _STOPPED.is_set():
            process = min(others)
            code, sentence = json.loads(others[process])
            _FOUND.append(Failure(process, int(code), str(sentence)))
            _thread.interrupt_main()
            _after_grace(client, mine, int(code))
            return


def _after_grace(client: object, mine: int, code: int) -> None:
    if _STOPPED.wait(_GRACE_SECONDS):
        return  # the main thread ends by itself
    found = _FOUND[0]
    if mine == 0:
        print(f"Error: process {found.process} of the run ended: {found.sentence}", file=sys.stderr)
    with contextlib.suppress(Exception):
        client.key_value_set(f"{_ENDED}{mine}", "")  # type: ignore[attr-defined]
    _leave(code)


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(int(code))


def _stop(thread: threading.Thread) -> None:
    _STOPPED.set()
    thread.join(2 * _POLL_SECONDS)
