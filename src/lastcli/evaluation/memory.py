"""What a run takes of memory at its peak, by the device's own count or else by that of the process.

A device with an allocator of its own (a GPU) counts the bytes in use and their peak, once for the whole process: of
several runs the one that needs least goes first. Elsewhere the arrays are on the heap of the process, whose allocator
says what is in use; it is asked again and again while the run is repeated. The resident set would not do: memory that
was freed stays with the process, and a run that is given it again takes nothing. What was in use before is taken off,
so that the interpreter, the libraries and the compiled program are no part of the figure.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

__all__ = ["DEVICE", "LOOKS", "PROCESS", "RUNS", "SECONDS", "peak_of", "settle"]

DEVICE, PROCESS = "the device's allocator", "the allocator of the process"

# A run is repeated until the heap was looked at so often, over so many runs and so long.
LOOKS, RUNS, SECONDS = 30, 3, 0.2
_PAUSE = 0.02


def peak_of(run: Callable[[], Any]) -> tuple[int, str] | None:
    """(bytes, whose count) that `run` takes at its peak beyond what is in use before it.

    Args:
        run: places its arguments, computes and lets go of everything; it has been compiled.

    Returns:
        None where nobody counts, or where the device's peak is that of something that ran before.
    """
    if jax.local_devices()[0].memory_stats() is not None:
        return _of_device(run)
    return _of_process(run)


def _of_device(run: Callable[[], Any]) -> tuple[int, str] | None:
    device = jax.local_devices()[0]
    before = device.memory_stats() or {}
    run()
    after = device.memory_stats() or {}
    peak = after.get("peak_bytes_in_use", 0)
    if peak <= before.get("peak_bytes_in_use", 0):
        return None
    return int(peak - before.get("bytes_in_use", 0)), DEVICE


def _of_process(run: Callable[[], Any]) -> tuple[int, str] | None:
    in_use = _heap()
    if in_use is None:
        return None
    settle()
    before = peak = in_use()
    runs = _Repeated(run)
    begin, looks = time.perf_counter(), 0
    runs.start()
    while runs.is_alive():
        peak, looks = max(peak, in_use()), looks + 1
        if looks >= LOOKS and runs.done >= RUNS and time.perf_counter() - begin >= SECONDS:
            runs.enough = True
        # the run wants the processor too
        time.sleep(0.0005)
    runs.join()
    if runs.error is not None:
        raise runs.error
    return (peak - before, PROCESS) if peak > before else None


def settle() -> None:
    """Let go of what nobody refers to any more, which would go during a run; the heap is looked at faster then too."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class _Repeated(threading.Thread):
    """A run again and again until it is `enough`; `error` is what it raised."""

    def __init__(self, run: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.call, self.done, self.enough = run, 0, False
        self.error: BaseException | None = None

    def run(self) -> None:
        """At least once."""
        try:
            while not self.enough:
                self.call()
                self.done += 1
                # the runtime lets go of the last pieces behind its answer: two runs must not be counted as one
                time.sleep(_PAUSE)
        except BaseException as error:  # raised again where the figure is waited for
            self.error = error


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library: mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


@functools.cache
def _heap() -> Callable[[], int] | None:
    """Bytes in use on the heap of this process, mapped blocks included; None where the C library does not say."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError, TypeError):
        return None
    ask.restype = _MallInfo

    def in_use() -> int:
        found = ask()
        return int(found.uordblks + found.hblkhd)

    return in_use
