"""What people see: at every width, without colour, without Unicode, with names made to confuse."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import re
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len

from lastcli.report import as_text, print_result, safe_text
from lastcli.report.measures import drop_text, metric_text
from lastcli.report.suggestions import as_yaml
from lastcli.report.sweeps import best_rows, profile
from lastcli.report.text import (
    bytes_text,
    peak_text,
    points_text,
    ratio_text,
    relative_text,
    rise_text,
    seconds_text,
    shrinkage,
    sparkline,
    to_ascii,
    wants_ascii,
)
from lastcli.results import (
    ConfigValue,
    LikelyTensor,
    Measured,
    PublishedNumbers,
    PublishedRow,
    RecipeShowResult,
    SearchStep,
    SuggestResult,
)
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
    assert [bytes_text(n) for n in (999_949, 999_950, 2 * 10**12, 10**16)] == [
        *("999.9 kB", "1.0 MB", "2.0 TB", "10000.0 TB")
    ]
    seconds = {
        0.0123: "12.3 ms",
        2.5: "2.5 s",
        1e-5: "10 µs",
        5000: "5000 s",
        1.0: "1 s",
        1e-3: "1 ms",
        1e-9: "0.001 µs",
    }
    assert [seconds_text(s) for s in (*seconds, None)] == [*seconds.values(), "–"]
    assert [shrinkage(0, 5), shrinkage(200, 150), shrinkage(2, 3)] == ["–", "−25.0%", "+50.0%"]
    assert [sparkline([0, 0]), sparkline([1, 0], 0.0), sparkline([8, 1])] == ["▁▁", "▁▁", "█▂"]
    assert [peak_text(math.inf, None), peak_text(0.5, False), peak_text(0.5, True)] == ["not bounded", "≥ 0.5", "0.5"]
    assert [points_text(name, 0.02) for name in ("nll", "mse", "accuracy")] == ["0.02 nats", "2%", "2 points"]
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


def test_nats_are_lost_where_that_is_what_is_measured() -> None:
    rows = (samples.sweep_row("last", "none", 0.5, 1.25, 1.5),)
    nats = {"metric": "nll", "baseline": 1.5, "higher_is_better": False, "max_drop": 0.02}
    text = as_text(samples.sweep(rows=rows, chosen=None, **nats))
    assert "nats lost" in text
    assert "0.2500" in text
    assert "within 0.02 nats" in text
    measured = Measured(metric="nll", n=10, baseline=1.5, value=1.75, drop=0.25)
    assert "nll 1.5 → 1.75 (0.2500 nats lost) on 10 examples." in as_text(samples.prune(measured=measured))


def test_a_value_without_interval_and_after_a_warm_up() -> None:
    bare = dataclasses.replace(samples.evaluation(), ci_low=None, ci_high=None, warmup=7)
    said = "s5_digits.msgpack: accuracy 98.0% on 300 examples of s5_digits_test.npz, first 7 steps left out"
    assert as_text(bare).splitlines()[0] == said


def test_what_was_not_compared_or_measured_is_not_spoken_of() -> None:
    text = as_text(dataclasses.replace(samples.verify(), layers=(), max_abs_difference=None))
    assert "Verified: all checks hold." in text
    assert "Layers" not in text
    assert "Largest difference" not in text
    text = as_text(dataclasses.replace(samples.bench(), speedup_low=None, speedup_high=None))
    assert "Speed-up 1.58 ×\n" in text
    kind = dataclasses.replace(samples.bench().original, memory_kind=None)
    assert "Memory as counted by" in as_text(samples.bench())
    assert "Memory as counted by" not in as_text(dataclasses.replace(samples.bench(), original=kind))
    text = as_text(samples.prune(out=None))
    assert "Written" not in text
    assert "Dry run" not in text


def test_poles_outside_the_circle_are_named_and_no_table_of_no_options_is_shown() -> None:
    first, *others = samples.inspect().layers
    wild = dataclasses.replace(samples.inspect(), layers=(dataclasses.replace(first, max_abs_pole=1.0), *others))
    text = as_text(dataclasses.replace(wild, config={}))
    assert "Unstable, with a pole on or outside the unit circle: encoder/layers_0/seq." in text
    assert "Description" not in text
    assert "Unstable" not in as_text(samples.inspect())


def test_scores_of_a_method_of_ones_own_and_of_states_without_any() -> None:
    first, *others = samples.score().layers
    lost = dataclasses.replace(first, score=first.score * math.inf)
    text = as_text(dataclasses.replace(samples.score(), criterion="", compat="paper", layers=(lost, *others)))
    assert "Method last, compat paper: 48 states of m.safetensors" in text
    row = next(line for line in text.splitlines() if first.name in line)
    assert row.split()[1:] == ["12", "0.990000", "–", "–", "–"]


def test_a_ratio_at_which_nothing_has_a_value_has_no_best() -> None:
    rows = [samples.sweep_row(method, "none", r, v) for r in (0.5, 0.6) for method, v in (("a", 0.9), ("b", 0.8))]
    rows[:2] = [dataclasses.replace(row, value=math.nan, drop=math.inf) for row in rows[:2]]
    assert best_rows(samples.sweep(rows=tuple(rows), chosen=None)) == {2}


def test_layers_of_the_chosen_model_and_parameters_that_nobody_counted() -> None:
    row = dataclasses.replace(samples.sweep_row("last", "none", 0.7, 0.98), certificates=samples.certificates())
    assert "Layers of the chosen model" in as_text(samples.sweep(rows=(row,), chosen=row))
    rows = [dataclasses.replace(row, parameters=None) for row in samples.sweep(2).rows]
    line = next(line for line in as_text(samples.sweep(2, rows=tuple(rows))).splitlines() if "50%" in line)
    assert line.split()[:3] == ["50%", "64", "–"]


def test_a_plan_without_a_model_names_the_paper_of_its_numbers() -> None:
    numbers = ConfigValue(value={"source": "table 1\x1b[2J", "full": 0.9}, source="recipe")
    text = as_text(RecipeShowResult(recipe=None, options={"published": numbers}, model={}))
    assert "table 1\\x1b[2J" in text
    assert "0.9" not in text
    assert "Model" not in text


def test_of_many_tensors_some_are_shown_and_the_rest_counted() -> None:
    tensors = tuple(LikelyTensor(name=f"layer.{i}", dtype="float32", shape=(2, i)) for i in range(30))
    text = as_yaml(SuggestResult(checkpoint="m.pt", description=None, tensors=tensors))
    assert text.count("#   layer.") == 24
    assert "#   and 6 more" in text
    assert "more" not in as_yaml(SuggestResult(checkpoint="m.pt", description=None, tensors=tensors[:24]))


def test_a_paper_whose_numbers_are_all_in_the_table() -> None:
    rows = (PublishedRow(method="last", ratio=0.5, value=0.912),)
    numbers = PublishedNumbers(source="a paper", metric="accuracy", full=0.99, rows=rows)
    assert as_text(samples.sweep(published=numbers)).splitlines().count("Published: a paper.") == 1


def test_a_terminal_of_windows_shows_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LANG")
    assert wants_ascii(Terminal()) is True
    monkeypatch.setattr("lastcli.report.text.os", SimpleNamespace(name="nt", environ=os.environ))
    assert wants_ascii(Terminal()) is False
