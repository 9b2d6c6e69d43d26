"""Every way a command can end: its exit code, one sentence on standard error, and a traceback only where asked for."""

from __future__ import annotations

import sys

import pytest

from lastcli.cli.console import guarded
from lastcli.errors import InputError


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
