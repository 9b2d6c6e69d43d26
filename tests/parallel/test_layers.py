"""Layers side by side: in order, in the caller's context, within the memory, the products of each on one core."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from lastcli.parallel import layers, processes

# Accelerate, which NumPy's wheels for macOS use, can be told nothing and needs not be.
told = pytest.mark.skipif(sys.platform == "darwin", reason="Accelerate shares its cores itself")


def products() -> list[int]:
    """On how many cores each library of matrix products runs them."""
    np.ones((2, 2)) @ np.ones((2, 2))
    return [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]


def test_layers_are_in_order_and_run_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "cores", lambda: 2)
    meeting = threading.Barrier(2, timeout=10)  # nobody passes alone

    def squared(layer: int) -> int:
        meeting.wait()
        return layer**2

    assert layers.each(squared, range(4)) == [0, 1, 4, 9]


@pytest.mark.parametrize(
    ("bytes_each", "most"), [(0, 8), (layers.AT_ONCE_BYTES // 3, 3), (layers.AT_ONCE_BYTES * 2, 1)]
)
def test_no_more_at_a_time_than_fit_into_memory(bytes_each: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "cores", lambda: 8)
    lock, inside, seen = threading.Lock(), [], [0]

    def looked(layer: int) -> int:
        with lock:
            inside.append(layer)
            seen[0] = max(seen[0], len(inside))
        threading.Event().wait(0.02)
        with lock:
            inside.remove(layer)
        return layer

    assert layers.each(looked, range(20), bytes_each) == list(range(20))
    assert seen[0] <= most
    assert most == 1 or seen[0] > 1


def test_the_context_of_the_caller_holds_in_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "cores", lambda: 3)
    monkeypatch.setattr(processes, "_PLACE", [(0, 4)])
    assert layers.each(lambda _: processes.count(), range(3)) == [4, 4, 4]
    with processes.alone():
        assert layers.each(lambda _: processes.count(), range(3)) == [1, 1, 1]


@told
def test_products_run_on_one_core_inside_and_as_before_after() -> None:
    before = products()
    assert before, "NumPy's products come from a library that can be told"
    with layers.products_on_one_core():
        assert set(products()) == {1}
        with layers.products_on_one_core():
            assert set(products()) == {1}
        assert set(products()) == {1}, "the inner one must not give the cores back"
    assert products() == before


@told
def test_an_error_gives_the_cores_back() -> None:
    before = products()

    def fails(layer: int) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        layers.each(fails, range(3))
    assert products() == before


@told
def test_threads_that_overlap_give_the_cores_back_with_the_last() -> None:
    before, entered, leave = products(), threading.Event(), threading.Event()

    def other() -> None:
        with layers.products_on_one_core():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with layers.products_on_one_core():
        thread.start()
        assert entered.wait(10)
    assert set(products()) == {1}
    leave.set()
    thread.join()
    assert products() == before
