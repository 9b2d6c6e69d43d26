"""Calls side by side: all of them, in order, no further ahead than is said, errors where they belong."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lastcli.parallel.threads import cores, side_by_side


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_in_the_order_of_the_items_whichever_is_ready_first(threads: int) -> None:
    later = threading.Event()

    def slow_first(item: int) -> int:
        if item == 0 and threads > 1:
            assert later.wait(10), "the second item must run while the first does"
        if item == 1:
            later.set()
        return item * item

    assert list(side_by_side(slow_first, range(9), threads)) == [k * k for k in range(9)]


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    running = side_by_side(lambda item: item, items(), 3)
    for given in range(10):
        assert next(running) == given
        assert len(taken) <= given + 1 + 3 + 1
    running.close()
    assert len(taken) < 20


def test_an_error_comes_at_its_place_and_ends_the_rest() -> None:
    begun: list[int] = []

    def fails(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ValueError("two")
        return item

    running = side_by_side(fails, range(1000), 2)
    assert [next(running), next(running)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(running)
    assert len(begun) < 10


def test_this_process_has_a_core() -> None:
    assert cores() >= 1
