"""Layers that are worked on by themselves: as many at a time as there are cores, and the products of each on one core.

The threads of a matrix product wait for each other by turning in circles. For matrices of some hundred rows that costs
more than it wins, and where another process wants the cores as well it costs many times as much.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from lastcli.parallel.threads import cores, side_by_side

__all__ = ["AT_ONCE_BYTES", "each", "products_on_one_core"]

# What the layers that are worked on at a time may take together, one layer whatever it takes.
AT_ONCE_BYTES = 1 << 30

Item = TypeVar("Item")
Found = TypeVar("Found")

_LOCK = threading.Lock()
_INSIDE: list[None] = []  # one entry for each `products_on_one_core` that is open, in any thread


def each(function: Callable[[Item], Found], items: Sequence[Item], bytes_each: int = 0) -> list[Found]:
    """`function` of every item, in their order; an error is raised at its place.

    Args:
        function: of a layer or its number; what it changes it may share with no other call.
        items: one a layer.
        bytes_each: memory that one call takes at most.
    """
    at_once = min(cores(), len(items), max(1, AT_ONCE_BYTES // max(bytes_each, 1)))
    context = copy_context()
    with products_on_one_core():
        return list(side_by_side(lambda item: context.copy().run(function, item), items, at_once))


@contextlib.contextmanager
def products_on_one_core() -> Iterator[None]:
    """Inside, a product or decomposition of NumPy and SciPy runs on one core, in every thread of this process."""
    with _LOCK:
        if not _INSIDE:
            _KEEPER.submit(_Limit.set).result()
        _INSIDE.append(None)
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE.pop()
            if not _INSIDE:
                _KEEPER.submit(_Limit.lift).result()


class _Limit:
    """The limit in force, of which there is one for all threads."""

    now: Any = None

    @classmethod
    def set(cls) -> None:
        from threadpoolctl import threadpool_limits

        cls.now = threadpool_limits(1, user_api="blas")

    @classmethod
    def lift(cls) -> None:
        cls.now.restore_original_limits()


# OpenBLAS lets no thread raise what another one has lowered.
_KEEPER = ThreadPoolExecutor(1, thread_name_prefix="last-products")
