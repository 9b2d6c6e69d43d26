"""How processes end together: who waits for whom, who speaks, and with which code, on a store that two share."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable

import pytest

from lastcli.parallel import failures, processes
from lastcli.parallel.failures import Failure


class Left(BaseException):
    """What ends a process here."""

    def __init__(self, code: int) -> None:
        self.code = code


class Store:
    """The words of all processes; `later` is called with the number of each look."""

    def __init__(self, later: Callable[[int], None] = lambda look: None) -> None:
        self.words: dict[str, str] = {}
        self.later, self.looks = later, 0

    def key_value_set(self, key: str, value: str) -> None:
        self.words[key] = value

    def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
        self.looks += 1
        self.later(self.looks)
        return [(key, value) for key, value in self.words.items() if key.startswith(prefix)]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The state of this module in a process that has just begun; what interrupts the main thread is counted."""
    found: list[bool] = []

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(failures._thread, "interrupt_main", lambda: found.append(True))
    for name, value in (("_FOUND", []), ("_STOPPED", threading.Event()), ("_POLL_SECONDS", 0.001)):
        monkeypatch.setattr(failures, name, value)
    return found


@pytest.fixture
def as_process(monkeypatch: pytest.MonkeyPatch, interrupted: list[bool]) -> Callable[[int, Store], None]:
    def place(index: int, store: Store) -> None:
        monkeypatch.setattr(processes, "_PLACE", [(index, 2)])
        monkeypatch.setattr(processes, "client", lambda: store)

    return place


def test_who_fails_says_so_and_the_first_waits_until_the_other_knows(as_process) -> None:
    store = Store()
    as_process(1, store)
    with pytest.raises(Left) as left:
        failures.end_with("It cannot.", 4)
    assert left.value.code == 4
    assert store.words == {"last/failed/1": '[4, "It cannot."]', "last/ended/1": ""}
    assert store.looks <= 1, "the service is with process 0; the other need not stay for it"
    first = Store(lambda look: first.key_value_set("last/ended/1", "") if look == 3 else None)
    as_process(0, first)
    with pytest.raises(Left) as left:
        failures.end_with("No.", 2)
    assert (left.value.code, first.looks) == (2, 3)


def test_a_service_that_is_gone_changes_no_exit_code(as_process) -> None:
    def gone(look: int) -> None:
        raise RuntimeError("unavailable")

    as_process(0, Store(gone))
    with pytest.raises(Left) as left:
        failures.end_with("No.", 3)
    assert left.value.code == 3
    failures._STOPPED.clear()
    failures._look()  # as the watching thread does: it ends
    assert failures.failure() is None


@pytest.mark.parametrize("mine", [0, 1])
def test_the_word_of_another_interrupts_and_ends_one_that_hangs(
    mine: int, as_process, interrupted, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(failures, "_GRACE_SECONDS", 0.0)
    store = Store()
    store.key_value_set(f"last/failed/{1 - mine}", '[4, "It cannot."]')
    as_process(mine, store)
    with pytest.raises(Left) as left:
        failures._look()
    assert (left.value.code, interrupted) == (4, [True])
    assert failures.failure() == Failure(1 - mine, 4, "It cannot.")
    assert f"last/ended/{mine}" in store.words
    said = "Error: process 1 of the run ended: It cannot.\n" if mine == 0 else ""
    assert capsys.readouterr().err == said, "only process 0 speaks"


def test_one_that_ends_by_itself_in_time_is_not_ended(as_process, interrupted, monkeypatch) -> None:
    store = Store()
    store.key_value_set("last/failed/0", '[4, "It cannot."]')
    as_process(1, store)
    monkeypatch.setattr(failures._thread, "interrupt_main", failures._STOPPED.set)
    failures._look()
    assert "last/ended/1" not in store.words


def test_its_own_word_is_no_failure_of_another(as_process, interrupted) -> None:
    store = Store(lambda look: failures._STOPPED.set() if look == 3 else None)
    store.key_value_set("last/failed/1", '[4, "It cannot."]')
    as_process(1, store)
    failures._look()
    assert (store.looks, interrupted, failures.failure()) == (3, [], None)


def test_a_failure_is_waited_for(interrupted) -> None:
    begin = time.monotonic()
    assert failures.failure(0.05) is None
    assert time.monotonic() - begin >= 0.05
    word = Failure(1, 2, "No.")
    threading.Timer(0.02, failures._FOUND.append, [word]).start()
    assert failures.failure(30) == word
    assert time.monotonic() - begin < 10


def test_one_process_watches_nobody_and_two_until_they_end(as_process, interrupted, monkeypatch) -> None:
    ends: list[tuple] = []
    monkeypatch.setattr(atexit, "register", lambda *call: ends.append(call))
    failures.watch()
    assert ends == []
    as_process(1, Store())
    failures.watch()
    ((stop, thread),) = ends
    assert thread.is_alive()
    assert thread.daemon
    monkeypatch.setattr(failures, "_POLL_SECONDS", 5.0)
    stop(thread)
    assert not thread.is_alive()
    failures.watch()
    assert len(ends) == 1, "a process that ends watches no more"
