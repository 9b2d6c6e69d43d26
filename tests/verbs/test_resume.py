"""`sweep --resume`: finished rows are kept, taken over, and never mixed with those of another sweep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lastcli.errors import InputError, UnsupportedModelError
from lastcli.plan import build_plan
from lastcli.reduction.compressor import Compressor
from lastcli.results import SweepResult
from lastcli.verbs.shared.finished import SCHEMA, Finished, Rows, _bound_to, _read
from lastcli.verbs.shared.session import Session
from lastcli.verbs.sweep import sweep
from tests.conftest import write_s5

SWEEP = ("--ratios", "0,0.4,0.6", "--json", "--resume", "rows.jsonl")


@pytest.fixture
def kept(last, tiny: Path, data: Path) -> dict:
    """A sweep whose rows are in `rows.jsonl`."""
    code, out, err = last("sweep", tiny, "--data", data, *SWEEP)
    assert code == 0, err
    return json.loads(out)


def test_an_interrupted_sweep_goes_on_from_its_finished_rows(last, kept, tiny, data, monkeypatch) -> None:
    file = Path("rows.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    file.write_bytes(b"".join(lines[:3]) + lines[3][:40])  # killed in the middle of the last line
    asked = []
    reduce = Compressor.reduce

    def counted(self, *pair, ratio):
        asked.append(float(ratio))
        return reduce(self, *pair, ratio=ratio)

    monkeypatch.setattr(Compressor, "reduce", counted)
    code, out, err = last("sweep", tiny, "--data", data, *SWEEP)
    assert code == 0
    assert "Going on from 2 finished rows in rows.jsonl" in err
    assert asked == [0.6]
    again = json.loads(out)
    assert again["rows"] == kept["rows"]
    assert again["baseline"] == kept["baseline"]
    assert file.read_bytes().splitlines()[:3] == [line.rstrip(b"\n") for line in lines[:3]]


def test_pictures_costs_gates_and_threshold_are_those_of_a_sweep_that_keeps_none(tiny, data) -> None:
    options = {
        "checkpoint": str(tiny),
        "data": str(data),
        "ratios": "0,0.4",
        "methods": "last,balanced",
        "max_drop": 1.0,
        "threshold": 0.4,
        "fail_over": 2.0,
        "fail_under": 0.0,
    }

    def swept(**more) -> SweepResult:
        with Session(build_plan(options | more)) as session:
            return sweep(session, anatomy=True)

    wanted = swept()
    swept(resume="rows.jsonl", fail_under=1.0)  # another floor asks the same rows
    found = swept(resume="rows.jsonl")
    assert wanted.gates
    assert (found.gates, found.passed, found.chosen) == (wanted.gates, wanted.passed, wanted.chosen)
    assert found.threshold == wanted.threshold == 0.4
    mine, theirs = found.anatomy, wanted.anatomy
    assert mine.costs == theirs.costs
    assert mine.before == theirs.before
    assert (mine.shown, mine.energy_of) == (theirs.shown, theirs.energy_of)
    assert len(theirs.kept) == len(theirs.costs) == 4
    assert [len(row) for row in theirs.kept] == [len(theirs.layers)] * 2 + [0, 0]
    assert [list(map(np.ndarray.tolist, row)) for row in mine.kept] == [
        list(map(np.ndarray.tolist, row)) for row in theirs.kept
    ]
    for one, other in zip(mine.poles_after, theirs.poles_after, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(mine.layers, theirs.layers, strict=True):
        np.testing.assert_array_equal(one.energy, other.energy)


def test_a_report_is_drawn_of_rows_that_were_kept(last, kept, tiny, data) -> None:
    code, _, err = last("sweep", tiny, "--data", data, *SWEEP, "--report", "page.html")
    assert code == 0, err
    assert "Going on from 3" in err
    page = Path("page.html").read_text()
    assert "<svg" in page
    assert "resume:" not in page


def test_rows_are_those_of_a_sweep_that_keeps_none(last, kept, tiny, data) -> None:
    _, out, _ = last("sweep", tiny, "--data", data, *SWEEP[:3])
    assert json.loads(out)["rows"] == kept["rows"]


def test_a_sweep_of_further_ratios_takes_the_rows_over(last, kept, tiny, data) -> None:
    code, out, err = last("sweep", tiny, "--data", data, "--ratios", "0.4,0.8", *SWEEP[2:])
    assert code == 0
    assert "Going on from 3" in err
    rows = json.loads(out)["rows"]
    assert [row["ratio"] for row in rows] == [0.4, 0.8]
    assert rows[0] == kept["rows"][1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--min-states", "2"), "another --min-states"),
        (("--max-drop", "0.1"), "another --max-drop"),
        (("--certify",), "another --certify"),
        (("--limit", "30"), "another held-out split"),
        (("--mean", "0.5"), "another held-out split, another --mean"),
        (("--set", "prenorm=false"), "another description of the model"),
    ],
)
def test_rows_of_another_sweep_are_refused(last, kept, tiny, data, change, said) -> None:
    before = Path("rows.jsonl").read_bytes()
    code, out, err = last("sweep", tiny, "--data", data, *SWEEP, *change)
    assert (code, out) == (3, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert Path("rows.jsonl").read_bytes() == before


def test_rows_of_another_checkpoint_or_other_data_are_refused(last, kept, tiny, data) -> None:
    other = write_s5(tiny.with_name("other.safetensors"), seed=4)
    assert "another checkpoint;" in last("sweep", other, "--data", data, *SWEEP)[2]
    arrays = dict(np.load(data))
    arrays["y"][0] = 1 - arrays["y"][0]
    np.savez(data, **arrays)
    assert "another held-out split;" in last("sweep", tiny, "--data", data, *SWEEP)[2]


@pytest.mark.parametrize("text", ["notes\n", '{"schema": "other"}\n', "[1]\n", "notes", "{}\n{}"])
def test_a_file_of_something_else_is_refused_and_kept(last, tiny, data, text) -> None:
    Path("rows.jsonl").write_text(text)
    code, _, err = last("sweep", tiny, "--data", data, *SWEEP)
    assert code == 3
    assert "--resume" in err
    assert Path("rows.jsonl").read_text() == text


def test_a_damaged_row_is_named(last, kept, tiny, data) -> None:
    file = Path("rows.jsonl")
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], '{"run": ["a"]}', *lines[3:]]) + "\n")
    code, _, err = last("sweep", tiny, "--data", data, *SWEEP)
    assert code == 3
    assert "rows.jsonl, line 3 is no row" in err


def test_a_place_that_cannot_be_written_is_a_sentence(last, tiny, data) -> None:
    code, _, err = last("sweep", tiny, "--data", data, *SWEEP[:4], "nowhere/rows.jsonl")
    assert code == 5
    assert "finished rows cannot be kept there" in err


def test_what_was_left_out_stays_left_out(tmp_path) -> None:
    path, bound = tmp_path / "rows.jsonl", {"schema": SCHEMA, "plan": {}}
    named = ("checkpoint", "model", "data", "calibration", "layer_inputs")
    bound |= dict.fromkeys(named)
    with path.open("w+b") as file:
        assert _read(path, file, bound) == {}
        Rows(file=file).add(("obs", "h2", "0.5"), Finished(None, left_out="It does not fit."))
        file.seek(0)
        assert _read(path, file, bound) == {("obs", "h2", "0.5"): Finished(None, left_out="It does not fit.")}
        line = path.read_bytes().splitlines()[1].replace(b'"drawn": null', b'"drawn": {}')
        file.write(line + b"\n")
        file.seek(0)
        with pytest.raises(InputError, match=r"rows\.jsonl, line 3 is no row of a sweep; remove the line"):
            _read(path, file, bound)


def test_of_several_stages_every_ratio_decides_the_rows(tiny, data) -> None:
    def plan(**options) -> dict:
        with Session(build_plan({"checkpoint": str(tiny), "data": str(data), **options})) as session:
            return _bound_to(session, None, certify=False)["plan"]

    assert plan(ratios="0.4,0.8") == plan(ratios="0.8")
    assert plan(ratios="0.4,0.8", steps=2) != plan(ratios="0.8", steps=2)


def test_a_sweep_of_which_nothing_fits_says_why(last, tiny, data, monkeypatch) -> None:
    def refuse(self, *pair, ratio):
        raise UnsupportedModelError(f"layer: no value at {float(ratio)} fits float16.")

    monkeypatch.setattr(Compressor, "reduce", refuse)
    code, out, err = last("sweep", tiny, "--data", data, "--ratios", "0.4,0.6", "-q")
    assert (code, out, err) == (4, "", "Error: layer: no value at 0.4 fits float16.\n")
