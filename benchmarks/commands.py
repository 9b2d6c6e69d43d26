"""Commands as processes of their own: how long they take, and how much memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

__all__ = ["Run", "imports_alone", "run"]


@dataclass(frozen=True)
class Run:
    """Seconds, those of all its processor cores together, and the peak resident bytes of one process."""

    seconds: float
    busy: float
    peak: int


def run(*command: str) -> Run:
    """One process of this Python, alone; its peak is what the kernel counted for it.

    A process inherits the peak of the one that starts it, so whoever calls this imports nothing large before.

    Raises:
        SystemExit: it failed; says how.
    """
    with tempfile.TemporaryFile() as error:
        begin = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=error)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            error.seek(0)
            raise SystemExit(f"{' '.join(command)}: {error.read().decode()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)


def imports_alone() -> int:
    """The peak of a process that imports what every command does, and JAX."""
    return min(run("-c", "import lastcli, jax").peak for _ in range(2))
