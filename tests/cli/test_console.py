"""Every way a command can end: its exit code, one sentence on standard error, and a traceback only where asked for."""

from __future__ import annotations

import logging
import sys

import pytest

from lastcli.cli.console import guarded
from lastcli.errors import InputError
from lastcli.parallel import failures, processes


def ended(error: BaseException, debug: bool = False) -> int:
    with pytest.raises(SystemExit) as raised, guarded(debug):
        raise error
    assert isinstance(raised.value.code, int)
    return raised.value.code


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "Interrupted; nothing was left half written."),
        (MemoryError(), 2, "Not enough memory; take a smaller --batch-size"),
        (InputError("x.npz: damaged."), 3, "x.npz: damaged."),
        (ZeroDivisionError("by\x1b[31mzero"), 70, r"Bug in last: ZeroDivisionError: by\x1b[31mzero. Run again with"),
    ],
)
def test_an_error_is_one_sentence_and_its_code(error, code, says, capsys):
    assert ended(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"Error: {says}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [InputError("x"), ZeroDivisionError("y")])
def test_debug_shows_where_it_came_from(error):
    with pytest.raises(type(error)), guarded(debug=True):
        raise error


@pytest.mark.parametrize("debug", [True, False])
def test_debug_makes_no_traceback_of_ctrl_c(debug, capsys):
    assert ended(KeyboardInterrupt(), debug) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_closed_pipe_is_no_error_and_nothing_more_is_written_to_it(tmp_path, monkeypatch, capsys):
    with (tmp_path / "out").open("w") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        assert ended(BrokenPipeError()) == 0
        file.write("more")
        file.flush()
    assert (tmp_path / "out").read_text() == ""
    assert capsys.readouterr().err == ""


class JaxRuntimeError(Exception):
    """As JAX names what it raises where another process is gone."""


@pytest.fixture
def told(monkeypatch):
    """What the others are told at the end."""
    found = []

    def end_with(sentence, code):
        found.append((sentence, int(code)))
        raise SystemExit(int(code))

    monkeypatch.setattr(failures, "end_with", end_with)
    monkeypatch.setattr(failures, "NOTICE_SECONDS", 0.0)
    return found


@pytest.mark.parametrize("mine", [0, 1])
@pytest.mark.parametrize(
    ("error", "found", "code", "says"),
    [
        (InputError("x.npz: damaged."), None, 3, "x.npz: damaged."),
        (KeyboardInterrupt(), None, 130, "Interrupted; nothing was left half written."),
        (KeyboardInterrupt(), failures.Failure(1, 4, "It cannot."), 4, "process 1 of the run ended: It cannot."),
        (JaxRuntimeError("gone"), None, 130, "Another process of the run is gone; nothing was left half written."),
        (JaxRuntimeError("gone"), failures.Failure(1, 4, "It cannot."), 4, "process 1 of the run ended: It cannot."),
    ],
)
def test_of_several_processes_all_are_told_and_the_first_speaks(
    mine, error, found, code, says, told, monkeypatch, capsys
):
    monkeypatch.setattr(processes, "_PLACE", [(mine, 2)])
    monkeypatch.setattr(failures, "_FOUND", [] if found is None else [found])
    assert ended(error) == code
    assert told == [(says, code)]
    assert capsys.readouterr().err == (f"Error: {says}\n" if mine == 0 else "")


@pytest.mark.parametrize(("mine", "says"), [(0, "found a\\x1b[2J.\n"), (1, "")])
def test_what_the_library_says_in_passing_is_said_once(mine, says, monkeypatch, capsys):
    monkeypatch.setattr(processes, "_PLACE", [(mine, 2)])
    with guarded(debug=False):
        logging.getLogger("lastcli.containers").warning("found a\x1b[2J.")
    assert capsys.readouterr().err == says


def test_a_note_is_no_command_for_githubs_runner(monkeypatch, capsys):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with guarded(debug=False):
        logging.getLogger("lastcli").warning("::error::x")
    assert not capsys.readouterr().err.startswith("::")
