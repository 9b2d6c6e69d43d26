"""What processes send each other comes back as it was, and nothing that could run code is read."""

from __future__ import annotations

import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lastcli.engine.elimination import Elimination
from lastcli.engine.protocol import Reduction
from lastcli.errors import InputError, UnsupportedModelError
from lastcli.parallel import processes
from lastcli.parallel.messages import decode, encode
from lastcli.report.blocks import Cell
from tests.evaluation.models import systems

FIELDS = [field.name for field in dataclasses.fields(Elimination)]


def test_values_come_back_as_they_were() -> None:
    value = {"a": [1, 2.5, None, True, "é"], ("x", 3): (np.float32(0.1), float("nan")), 7: []}
    back = decode(encode(value))
    assert back["a"] == value["a"]
    assert back[7] == []
    assert back["x", 3][0] == np.float32(0.1)
    assert type(back["x", 3][0]) is np.float32
    assert np.isnan(back["x", 3][1])


def test_reductions_keep_every_bit_of_their_systems() -> None:
    first = Reduction(np.array([[0, 2]]), systems()[0], "readout", 0.5)
    back = decode(encode([first]))[0]
    assert (back.changed, back.bound) == ("readout", 0.5)
    np.testing.assert_array_equal(back.kept, first.kept)
    for name, array in vars(first.system).items():
        if isinstance(array, np.ndarray):
            assert getattr(back.system, name).dtype == array.dtype
            np.testing.assert_array_equal(getattr(back.system, name), array)
        else:
            assert getattr(back.system, name) == array


def test_named_tuples_come_back_as_what_they_were() -> None:
    cell = Cell("a", "good")
    back = decode(encode([cell, ("a", "good")]))
    assert [type(item) for item in back] == [Cell, tuple]
    assert back == [cell, cell]


def test_errors_come_back_with_their_exit_code() -> None:
    back = decode(encode(UnsupportedModelError("it cannot")))
    assert type(back) is UnsupportedModelError
    assert str(back) == "it cannot"


def message(packed: object) -> bytes:
    text = json.dumps(packed).encode()
    return len(text).to_bytes(8, "little") + text


def test_a_dataclass_whose_module_nobody_imported_yet_is_made() -> None:
    name = "lastcli.engine.elimination"
    before = sys.modules.pop(name, None)
    try:
        back = decode(message(["data", name, "Elimination", ["dict", *([key, None] for key in FIELDS)]]))
        assert type(back).__name__ == "Elimination"
    finally:
        sys.modules[name] = before or sys.modules[name]


@pytest.mark.parametrize(
    ("module", "name"), [("os", "system"), ("lastcli.parallel.processes", "start"), ("subprocess", "Popen")]
)
def test_nothing_but_records_of_the_package_is_made(module: str, name: str) -> None:
    with pytest.raises(TypeError, match="no record"):
        decode(message(["data", module, name, ["dict"]]))
    with pytest.raises(TypeError, match="cannot be sent"):
        encode(object())


def test_one_process_does_everything_itself() -> None:
    assert not processes.running()
    assert (processes.index(), processes.count(), processes.count_all()) == (0, 1, 1)
    assert list(processes.share(range(5))) == [0, 1, 2, 3, 4]
    assert processes.divided(lambda x: x * x, [1, 2, 3]) == [1, 4, 9]
    assert processes.first_only(lambda: 3) == 3
    assert processes.exchange("word") == ["word"]
    with pytest.raises(InputError):
        processes.together(raising)


def raising() -> None:
    raise InputError("no")


def test_what_two_processes_give_comes_in_their_order_and_whole(monkeypatch) -> None:
    from jax.experimental import multihost_utils

    words = ["short", "rather longer"]
    theirs = np.frombuffer(encode(words[1]), np.uint8)

    def gathered(mine: np.ndarray) -> np.ndarray:
        if mine.dtype == np.int32:  # the lengths, before what is as long as the longest
            return np.stack([mine, np.array([0, len(theirs)], np.int32)])
        assert len(mine) == len(theirs)
        return np.stack([mine, theirs])

    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    monkeypatch.setattr(processes, "client", lambda: SimpleNamespace(wait_at_barrier=lambda name, most: None))
    monkeypatch.setattr(processes, "_PLACE", [(0, 2)])
    assert processes.exchange(words[0]) == words
    assert processes.together(lambda: words[0]) == words


def test_an_error_of_another_process_is_raised_here(monkeypatch) -> None:
    monkeypatch.setattr(processes, "_PLACE", [(0, 2)])
    monkeypatch.setattr(processes, "exchange", lambda mine: [mine, UnsupportedModelError("it cannot")])
    with pytest.raises(UnsupportedModelError, match="it cannot"):
        processes.together(lambda: 3)


def test_processes_come_together_once(monkeypatch) -> None:
    monkeypatch.setattr(processes, "_PLACE", [(1, 2)])
    processes.start("nowhere:1", 9, 0)  # would wait for the others
    assert (processes.index(), processes.count_all()) == (1, 2)
