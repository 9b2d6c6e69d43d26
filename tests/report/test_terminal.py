"""What people see: at every width, without colour, without Unicode, with names made to confuse."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import re
from typing import Any

import pytest
from rich.cells import cell_len

from lastcli.report import as_text, print_result, safe_text
from lastcli.report.measures import drop_text, metric_text
from lastcli.report.sweeps import best_rows, profile
from lastcli.report.text import bytes_text, ratio_text, relative_text, rise_text, seconds_text, to_ascii, wants_ascii
from lastcli.results import Measured, SearchStep
from tests.report import samples

HOSTILE = "a[red]b[/red]\x1b[31mc\nd\u202ee\u200f\ufefff\udcff:smile:"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(result: Any) -> str:
    stream = Terminal()
    print_result(result, stream)
    return stream.getvalue()


@pytest.mark.parametrize("width", [20, 31, 40, 60, 80, 100])
@pytest.mark.parametrize("result", [*samples.every(), samples.sweep(6)], ids=lambda r: r.command)
def test_never_wider_than_the_terminal(result: Any, width: int) -> None:
    for ascii_only in (False, True):
        text = as_text(result, width, ascii_only)
        assert max(cell_len(line) for line in text.splitlines()) <= width
        assert text.isascii() or not ascii_only


def test_nothing_is_cut_in_a_pipe() -> None:
    name = "encoder/" + "/".join(f"layers_{i}" for i in range(18))
    text = as_text(samples.inspect(name))
    assert name in text
    assert "Not shown" not in text
    row = next(line for line in text.splitlines() if name in line)
    assert row.split()[1:] == ["32", "48", "48", "forward", "0.998765", "6,336"]


def test_numbers_are_never_cut_on_a_narrow_terminal() -> None:
    for width in range(12, 81):
        text = as_text(samples.prune(), width)
        assert "−70.3%" in text or "change" in text.split("Not shown")[-1]
        assert re.search(r"109\.0\s+kB", text)


def test_a_sweep_at_80_columns_says_everything_that_matters() -> None:
    text = as_text(samples.sweep(), 80)
    row = next(line for line in text.splitlines() if line.lstrip().startswith("50%"))
    assert row.split() == ["50%", "64", "8,650", "91.0%", "89.0", "–", "92.5%", "7.0", "0.5", "18", "15", "15", "16"]
    baseline = next(line for line in text.splitlines() if line.lstrip().startswith("full"))
    assert baseline.split()[:7] == ["full", "128", "14,410", "98.0%", "95.7", "–", "99.1%"]
    chosen = [line for line in text.splitlines() if line.endswith("◀")]
    assert len(chosen) == 1
    assert chosen[0].lstrip().startswith("70%")


def test_methods_stand_side_by_side_with_the_best_marked() -> None:
    text = as_text(samples.sweep(2), 80)
    row = next(line for line in text.splitlines() if line.lstrip().startswith("50%"))
    assert row.split()[3:] == ["91.0%", "(7.0)", "98.0%", "(0.0)★"]
    # both methods are equal at 10%: nothing to mark
    assert "★" not in next(line for line in text.splitlines() if line.lstrip().startswith("10%"))
    assert "70% with obs + calibrated" in text
    found = samples.sweep(2)
    assert {found.rows[i].method for i in best_rows(found)} == {"obs"}


def test_errors_prefer_the_lower_value() -> None:
    rows = (samples.sweep_row("a", "none", 0.5, 0.3, 0.2), samples.sweep_row("b", "none", 0.5, 0.25, 0.2))
    result = samples.sweep(rows=rows, metric="mse", baseline=0.2, higher_is_better=False, chosen=None)
    assert best_rows(result) == {1}
    assert "rise" in as_text(result)


def test_a_sweep_says_what_can_be_won() -> None:
    found = dataclasses.replace(samples.sweep(), parameters=1000, state_parameters=320)
    assert "All states are 32.0% of the parameters, half of them 16.0%: no more can be won." in as_text(found)
    counted = dataclasses.replace(found, multiply_adds=200, state_multiply_adds=50)
    said = "32.0% of the parameters and 25.0% of the multiply-adds of a step, half of them 16.0% and 12.5%"
    assert said in as_text(counted)
    assert "no more can be won" not in as_text(samples.sweep())


def test_gate_and_missing_choice_are_said() -> None:
    text = as_text(samples.sweep(chosen=None, passed=False, fail_over=0.01))
    assert "No ratio of this sweep stays within 1 point." in text
    assert "Gate FAILED: a ratio loses more than 1 point." in text
    assert "Gate passed" in as_text(samples.sweep(passed=True, fail_over=0.02))


def test_verdicts_do_not_need_colour() -> None:
    assert "NOT verified: 1 of 2 failed." in as_text(samples.verify(False))
    assert "FAILED" in as_text(samples.verify(False))
    assert "Verified: all checks hold." in as_text(samples.verify())


def test_search_and_dry_run_are_said() -> None:
    text = as_text(samples.prune(search=samples.search(False), dry_run=True))
    assert "No model that was tried stays within 1 point." in text
    assert "Dry run: nothing was written." in text
    assert "Written" not in text


@pytest.mark.parametrize("width", [None, 80, 20])
def test_hostile_names_do_nothing(width: int | None) -> None:
    text = as_text(samples.inspect(HOSTILE), width)
    joined = text if width is None else text.replace("\n", "")
    assert r"a[red]b[/red]\x1b[31mc\nd\u202ee\u200f\ufefff\udcff:smile:" in joined.replace(" ", "")
    for char in "\x1b\u202e\u200f\ufeff\udcff":
        assert char not in text


def test_a_name_of_64_kilobytes() -> None:
    text = as_text(samples.inspect("x" * 65536))
    assert max(map(len, text.splitlines())) < 400
    assert "…" in text
    assert safe_text("y" * 1000) == "y" * 1000


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in shown(samples.verify())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in shown(samples.verify())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown(samples.verify())
    stream = io.StringIO()
    print_result(samples.verify(), stream)
    assert "\x1b" not in stream.getvalue()


def test_width_of_the_terminal_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown(samples.sweep()))
    assert max(cell_len(line) for line in plain.splitlines()) <= 40


def test_streams_that_cannot_hold_unicode() -> None:
    for form in ("table", "markdown", "csv", "json"):
        buffer = io.BytesIO()
        stream = io.TextIOWrapper(buffer, encoding="latin-1", write_through=True)
        print_result(samples.inspect("λ\udcff" + HOSTILE), stream, form)
        print_result(samples.sweep(2), stream, form)
        assert buffer.getvalue().decode("latin-1")


@pytest.mark.parametrize(
    ("locale", "ascii_only"),
    [
        ({"LANG": "C"}, True),
        ({"LANG": ""}, True),
        # what Python itself sets where it finds the C locale
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LANG": "C.UTF-8"}, False),
        ({"LANG": "C", "LC_ALL": "de_DE.UTF-8"}, False),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "POSIX"}, True),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="locales of POSIX")
def test_the_c_locale_gets_ascii(locale: dict[str, str], ascii_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in locale.items():
        monkeypatch.setenv(name, value)
    assert wants_ascii(Terminal()) is ascii_only
    assert shown(samples.sweep(2)).isascii() is ascii_only


def test_ascii_spellings() -> None:
    assert to_ascii("H∞ λ → −3 – 4…") == "Hinf lambda -> -3 - 4..."
    assert to_ascii("é") == r"\xe9"


def test_numbers() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 182906, 10**9, None)] == [
        *("0 B", "999 B", "1.0 kB", "182.9 kB", "1.0 GB", "–")
    ]
    assert [seconds_text(s) for s in (0.0123, 2.5, 1e-5, 5000)] == ["12.3 ms", "2.5 s", "10 µs", "5000 s"]
    assert [ratio_text(r) for r in (0.33, 0.125, 0.07, 0.29)] == ["33%", "12.5%", "7%", "29%"]


def test_large_relative_numbers_are_factors_and_not_rows_of_digits() -> None:
    rises = [
        (0.021, "+2.1%"),
        (-0.3, "−30%"),
        (2.5, "+250%"),
        (9.99, "+999%"),
        (10.0, "×11"),
        (819601323376.0, "×8.2e11"),
    ]
    assert [rise_text(rise) for rise, _ in rises] == [text for _, text in rises]
    relatives = [(0.0213, "2.13%"), (9.99, "999%"), (53.2, "×53"), (9999.9, "×1.0e4"), (5.3e4, "×5.3e4"), (None, "–")]
    assert [relative_text(value) for value, _ in relatives] == [text for _, text in relatives]
    assert drop_text("mse", 819601323376.13) == "×8.2e11"
    assert drop_text("fit", 2e9, 10) == "2e+11"
    assert drop_text("accuracy", 0.07, 10) == "7.0"
    assert [rise_text(None), rise_text(math.inf), relative_text(math.inf)] == ["–", "∞", "∞"]
    search = samples.search()
    steps = (SearchStep(ratio=0.5, states=64, value=1e11, drop=819601323376.13, within=False),)
    shown = as_text(samples.prune(search=dataclasses.replace(search, metric="mse", steps=steps)))
    assert "×8.2e11" in shown
    assert "8196" not in shown


def test_a_value_that_is_no_number_is_said_in_words() -> None:
    assert [metric_text(name, math.nan) for name in ("accuracy", "mse", "fit")] == ["not finite"] * 3
    assert metric_text("mse", math.inf) == "∞"
    assert [drop_text(name, math.inf) for name in ("accuracy", "mse", "fit")] == ["∞"] * 3
    lost = dataclasses.replace(samples.sweep_row("a", "none", 0.5, 0.3, 0.2), value=math.nan, drop=math.inf)
    sound = samples.sweep_row("b", "none", 0.5, 0.3, 0.2)
    for rows in ((lost,), (lost, sound)):
        text = as_text(samples.sweep(rows=rows, chosen=None))
        assert "not finite" in text
        assert "∞" in text
        assert "nan" not in text
    measured = Measured(metric="accuracy", n=10, baseline=0.9, value=math.nan, drop=math.inf, max_difference=math.nan)
    text = as_text(samples.prune(measured=measured))
    assert "accuracy 90.00% → not finite (∞ points lost)" in text
    assert "nan" not in text


def test_a_gate_on_a_model_at_chance_says_so_and_does_not_blame_the_rows() -> None:
    fault = "The full model does not beat the most frequent class."
    text = as_text(
        samples.sweep(chosen=None, passed=False, fail_over=0.01, max_drop=0.01, baseline_fault=fault, notes=(fault,))
    )
    assert "Gate FAILED: the full model is nothing to compare with; the reason is below." in text
    assert "Nothing is chosen: the full model is nothing to compare with" in text
    assert "loses more" not in text
    assert text.count(fault) == 1


def test_layer_profiles() -> None:
    assert profile((9, 10), (32, 32)) == " 9 10"
    bars = profile((32, 16, 0) * 4, (32,) * 12)
    assert len(bars) == 12
    assert bars[0] == "█"
    assert bars[2] == "▁"
    assert profile((), ()) == "–"
