"""Programs that are compiled before they are called: once each, in float64, tried again where compiling failed."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lastcli.engine.ahead import Ahead


def counted() -> tuple[Ahead, list[Any]]:
    """A function's programs, and what was traced so far."""
    traced: list[Any] = []

    @partial(jax.jit, static_argnames=("times",))
    def function(x: Any, y: Any, *, times: int) -> Any:
        traced.append((x.shape, times))
        return jnp.sum(x) * times + y

    return Ahead(function), traced


def test_what_is_compiled_ahead_is_what_is_called() -> None:
    programs, traced = counted()
    shape = jax.ShapeDtypeStruct((3,), np.float64)
    programs.begin(shape, jax.ShapeDtypeStruct((), np.float64), times=2).result()
    assert programs(np.array([1.0, 2.0, 1e-12]), np.zeros(()), times=2) == 2 * (3 + 1e-12), "in float64"
    assert traced == [((3,), 2)]
    programs(np.ones(4), np.zeros(()), times=2)
    programs(np.ones(3), np.zeros(()), times=3)
    assert traced == [((3,), 2), ((4,), 2), ((3,), 3)]


def test_threads_that_want_the_same_compile_it_once() -> None:
    programs, traced = counted()
    together = threading.Barrier(4)
    found = []

    def wanted() -> None:
        together.wait()
        found.append(float(programs(np.ones(5), np.zeros(()), times=1)))

    threads = [threading.Thread(target=wanted) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [5.0] * 4
    assert len(traced) == 1


def test_what_could_not_be_compiled_is_tried_again() -> None:
    short = [True]

    @jax.jit
    def function(x: Any) -> Any:
        if short.pop() if short else False:
            raise MemoryError("no room")
        return x + 1

    programs = Ahead(function)
    with pytest.raises(MemoryError, match="no room"):
        programs(np.ones(2))
    np.testing.assert_array_equal(programs(np.ones(2)), [2, 2])


TWO_AT_ONCE = """
import subprocess
import sys
import threading
import numpy as np
from lastcli.engine.elimination import eliminate_blocks
from lastcli.engine.regression import Regression

groups, size, states = 4, 16, 16
F = size * states
factor = np.random.default_rng(0).normal(size=(groups, F + 3, 3 * F))
joint = factor @ factor.swapaxes(1, 2) / F
energy = joint[:, F:, F:][:, range(3), range(3)].sum(axis=1)
problem = Regression(M=joint[:, :F, :F], X=joint[:, F:, :F], energy=energy, ridge=np.zeros(()))

def eliminated():
    for _ in range(20):
        eliminate_blocks(problem, size, 1, np.ones(1))

threads = [threading.Thread(target=eliminated) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("over")
"""


def test_programs_with_many_decompositions_do_not_wait_for_each_other_for_ever() -> None:
    """Two at a time would, on two cores: each with a thread of XLA's pool that the other needs."""
    found = subprocess.run([sys.executable, "-c", TWO_AT_ONCE], capture_output=True, text=True, timeout=180, check=True)
    assert found.stdout == "over\n"
