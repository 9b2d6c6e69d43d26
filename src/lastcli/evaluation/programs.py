"""A program compiled once for every shape of its arguments, whichever thread asks first.

`jax.jit` compiles again when a second thread comes before the first is done. Here the second waits; programs of
different shapes are compiled at the same time, and passes of those that are ready go on meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

__all__ = ["Program"]


class Program:
    """A function for `jax.jit`, called with arrays that are placed already.

    Args:
        function: as for `jax.jit`.
        out_shardings: where its results lie.
    """

    def __init__(self, function: Callable[..., Any], out_shardings: Any) -> None:
        self._jitted = jax.jit(function, out_shardings=out_shardings)
        self._ready: dict[Any, Future[Callable[..., Any]]] = {}
        self._lock = threading.Lock()
        self._tracing = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        """The function's value; compiles it, or waits for the thread that does, where these shapes are new."""
        return self._compiled(arguments)(*arguments)

    def _compiled(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        leaves, tree = jax.tree.flatten(arguments)
        key = tree, tuple((np.shape(leaf), np.dtype(leaf.dtype), getattr(leaf, "sharding", None)) for leaf in leaves)
        with self._lock:
            ready = self._ready.get(key)
            mine = ready is None
            if ready is None:
                ready = self._ready[key] = Future()
        if mine:
            try:
                # a model's function may be someone's own code: only one thread at a time runs it
                with self._tracing:
                    lowered = self._jitted.lower(*arguments)
                ready.set_result(lowered.compile())
            except BaseException as error:
                with self._lock:
                    del self._ready[key]
                ready.set_exception(error)
        return ready.result()
