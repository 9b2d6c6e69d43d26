"""Figures of the page on choosing a method are those of the results, formulae of the mathematics the engine's."""

from __future__ import annotations

import re

import pytest
from benchmarks.reproduce.aggregate import Column

from benchmarks import choosing
from tests.docs.blocks import follow


def test_the_figures_of_the_choice_are_those_of_the_results():
    page = choosing.PAGE.read_text()
    assert choosing.filled(page) == page, "run: python -m benchmarks.choosing"


@pytest.mark.parametrize(("extra", "cells"), [("", ",,"), (",steps,inputs", ",1,calibration")])
def test_a_choice_says_how_far_its_own_rows_go(tmp_path, extra, cells):
    # two tasks: within a point up to 20% and 10% for aire, measured from 50% on for poles
    drops = {"a": [0.0, 0.0, 0.01], "b": [0.0, 0.005, 0.02]}
    lines = ["task,method,refit,ratio,value_mean,value_sd,drop_mean,seeds" + extra]
    lines += [
        f"{task},aire,none,{ratio},0.9,0,{drop},3" + (cells if extra else "")
        for task, found in drops.items()
        for ratio, drop in zip((0, 0.1, 0.2), found)
    ]
    lines += [f"{task},obs,poles,0.5,0.9,0,{drop},3" + (cells if extra else "") for task, drop in (("a", 0), ("b", 1))]
    path = tmp_path / "results.csv"
    path.write_text("\n".join(lines) + "\n")
    found = {summary.column: summary for summary in choosing.read(path)}
    assert choosing.reach(found[Column("aire", "none")]) == "15%"
    assert choosing.reach(found[Column("obs", "poles")]) == "≥ 25%"
    text = choosing.decision(list(found.values()))
    assert re.search(r"`--method aire` .* 15% \|$", text, flags=re.MULTILINE)
    assert re.search(r"`--method obs` .* not measured \|$", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("method", "refit", "inputs"),
    [("aire", "none", False), ("obs", "h2", False), ("obs", "none", True), ("last", "calibrated", True)],
)
def test_what_a_row_needs_is_what_the_registry_says(method, refit, inputs):
    assert choosing.needs_inputs(Column(method, refit)) == inputs


def test_the_formulae_are_those_of_the_engine(last):
    scope = follow("docs/mathematics.md", {}, last)
    assert scope["error"] is not None
