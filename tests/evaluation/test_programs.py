"""A program that several threads ask for: traced and compiled once for each shape, and again after a failure."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest

from lastcli.evaluation.programs import Program
from lastcli.parallel.devices import local_mesh, shardings


def program_of(function) -> Program:
    return Program(function, shardings(local_mesh())[0])


def test_threads_that_come_at_once_share_one_compilation_a_shape():
    traced, together = [], threading.Barrier(6)

    def double(x):
        traced.append(x.shape)
        return {"doubled": 2 * x}

    program = program_of(double)
    arrays = [jnp.arange(3.0), jnp.arange(4.0)] * 3

    def ask(x):
        together.wait(10)
        return program(x)["doubled"]

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(ask, arrays))
    assert sorted(traced) == [(3,), (4,)]
    for x, y in zip(arrays, found):
        np.testing.assert_array_equal(y, 2 * np.asarray(x))


def test_a_failure_is_that_of_the_asker_and_not_kept():
    broken = [True]

    def touchy(x):
        if broken:
            raise ValueError("not yet")
        return x

    program = program_of(touchy)
    with pytest.raises(ValueError, match="not yet"):
        program(jnp.zeros(2))
    broken.clear()
    np.testing.assert_array_equal(program(jnp.ones(2)), np.ones(2))
