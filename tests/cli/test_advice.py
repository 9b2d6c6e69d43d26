"""What is said at the end of a run that named no method, and when nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lastcli.cli.advice import advice
from lastcli.plan import build_plan
from lastcli.results import Measured
from tests.report import samples

MEASURED = Measured(metric="accuracy", n=100, baseline=0.9, value=0.88, drop=0.02)


def of_prune(**changes):
    return replace(samples.prune(), method="last", ratio=0.5, measured=None, **changes)


def test_a_default_prune_is_told_what_loses_less():
    said = advice(build_plan({"ratio": 0.5}), of_prune(), calibrated=False)
    assert "--method obs with --calibration FILE" in said
    assert "best" not in said


def test_calibration_inputs_that_are_there_are_not_asked_for():
    said = advice(build_plan({"max_drop": 0.01}), of_prune(), calibrated=True)
    assert "--calibration" not in said
    assert "--method best" in said


@pytest.mark.parametrize(
    "flags", [{"method": "last"}, {"refit": "h2"}, {"compat": "reference"}, {"methods": "last,aire"}], ids=str
)
def test_who_chose_is_not_advised(flags):
    assert advice(build_plan(flags), of_prune(), calibrated=False) is None


def test_where_nothing_is_known_nothing_is_said():
    assert advice(build_plan({}), replace(of_prune(), method="obs"), calibrated=False) is None
    assert advice(build_plan({}), replace(of_prune(), ratio=0.0), calibrated=False) is None
    kept = replace(of_prune(), measured=replace(MEASURED, drop=0.0))
    assert advice(build_plan({}), kept, calibrated=False) is None
    lost = replace(of_prune(), measured=MEASURED)
    assert advice(build_plan({}), lost, calibrated=False) is not None


def test_it_is_the_last_line_and_for_people_only(last, tiny):
    run = ("prune", tiny, "--ratio", "0.3", "--dry-run")
    assert "docs/results.md" in last(*run)[2].strip().splitlines()[-1]
    for silent in ("--json", "--csv", "--markdown", "--quiet"):
        code, out, err = last(*run, silent)
        assert code == 0
        assert "docs/results.md" not in out + err
