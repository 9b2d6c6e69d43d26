"""Calls side by side in threads, their results in order.

A compiled pass keeps one core busy most of its time: the loop over the steps of a sequence is one thread's. On a CPU
several passes therefore run at once, each on what its caller gives it; none knows of the others, so no number changes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["cores", "side_by_side"]

Item = TypeVar("Item")
Found = TypeVar("Found")


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def side_by_side(function: Callable[[Item], Found], items: Iterable[Item], threads: int) -> Iterator[Found]:
    """`function` of every item, in the order of the items, `threads` of them at a time.

    Items are taken as they are needed, never more than `threads` + 1 ahead of what was given out. Where one call
    raises, so does the iteration at its place; those that have not begun by then are given up.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Found]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="last") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
