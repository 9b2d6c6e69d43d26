"""Programs for several shapes, compiled side by side before they are called, and each of them once in a process.

Compiling keeps one core busy for seconds. What a computation calls one after the other, and what several threads call
for layers of one shape, would otherwise be compiled one after the other, or once in each thread.

They are compiled side by side, but run one at a time. A decomposition of many matrices (jaxlib 0.10) holds a thread of
XLA's pool while it waits for others of that pool: two programs with one may hold what the other waits for, for ever.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from lastcli.engine.precision import in_float64

__all__ = ["Ahead"]


class Ahead:
    """The programs of one function of arrays, in float64.

    Args:
        function: jitted; its static arguments are given by name.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._programs: dict[Hashable, Future[Callable[..., Any]]] = {}
        self._lock = threading.Lock()

    def begin(self, *shapes: Any, **static: Any) -> Future[Callable[..., Any]]:
        """Compile for arguments (pytrees) of these shapes and dtypes, unless somebody has begun it before.

        Returns:
            What gives the program: a function of arrays of exactly these shapes.
        """
        leaves, form = jax.tree.flatten(shapes)
        key = (form, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves), tuple(sorted(static.items())))
        with self._lock:
            program = self._programs.get(key)
            if program is None or (program.done() and program.exception() is not None):
                # one that failed, for lack of memory say, is tried again by whoever wants it next
                program = self._programs[key] = _COMPILERS.submit(_compiled, self._function, shapes, static)
            return program

    @in_float64
    def __call__(self, *arrays: Any, **static: Any) -> Any:
        """The function of these arrays, in NumPy's arrays; waits for its program."""
        shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), arrays)
        program = self.begin(*shapes, **static).result()
        with _RUNNING:
            return jax.tree.map(np.asarray, program(*arrays))  # the arrays are there once it is over


@in_float64
def _compiled(function: Any, shapes: tuple[Any, ...], static: dict[str, Any]) -> Callable[..., Any]:
    found: Callable[..., Any] = function.lower(*shapes, **static).compile()
    return found


_RUNNING = threading.Lock()
_COMPILERS = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="last-compile")
