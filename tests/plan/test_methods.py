"""The registries of methods and refits: what each entry says, and that an entry is all it takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lastcli.engine.allocation import ALLOCATIONS
from lastcli.engine.criteria import CRITERIA
from lastcli.errors import UsageError
from lastcli.plan import METHODS, REFITS, Method, Refit
from lastcli.plan.methods import as_method
from lastcli.plan.refits import as_refit
from lastcli.plan.registries import function_at

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_a_method_says_what_it_is_and_names_what_exists(method):
    assert METHODS[method.name] is method
    assert method.help
    assert method.source
    assert f"`{method.name}`" in PAGE
    assert method.criterion in {*CRITERIA, "obs", "hankel"}
    assert method.allocation in {*ALLOCATIONS, "sensitivity", "exchange"}
    assert method.default_refit in REFITS
    assert not REFITS[method.default_refit].needs_calibration
    assert method.calibrated_refit in REFITS
    assert method.moves_poles == (method.criterion == "hankel")


@pytest.mark.parametrize("refit", REFITS.values(), ids=lambda refit: refit.name)
def test_a_refit_says_what_it_is_and_its_function_exists(refit):
    assert REFITS[refit.name] is refit
    assert refit.help
    assert refit.source
    assert f"`{refit.name}`" in PAGE
    assert callable(function_at(refit.run))
    assert refit.needs_calibration == (refit.moments == "calibrated")


def test_last_and_aire_are_their_papers_rules():
    assert (METHODS["last"].criterion, METHODS["last"].allocation) == ("hinf", "adaptive")
    assert (METHODS["aire"].criterion, METHODS["aire"].allocation) == ("h2", "adaptive")


def test_the_default_refit_of_obs_follows_the_calibration_inputs():
    assert METHODS["obs"].refit(calibrated=False) is REFITS["h2"]
    assert METHODS["obs"].refit(calibrated=True) is REFITS["calibrated"]
    assert METHODS["last"].refit(calibrated=True) is REFITS["none"]


@pytest.mark.parametrize(
    ("method", "refit", "available", "reads"),
    [
        ("last", "none", True, False),
        ("last", "calibrated", False, True),
        ("obs", "none", True, True),
        ("obs", "none", False, False),
        ("obs", "h2", True, False),
        ("obs-sensitivity", "h2", False, True),
    ],
)
def test_who_reads_the_calibration_inputs(method, refit, available, reads):
    assert METHODS[method].reads_calibration(REFITS[refit], available=available) is reads


def test_a_line_in_the_registry_is_all_a_method_takes(last, tiny, data, monkeypatch):
    new = Method("even-h2", "H2 energy, the same share of every layer", "here", criterion="h2", allocation="uniform")
    monkeypatch.setitem(METHODS, new.name, new)
    code, out, err = last("sweep", tiny, "--method", "even-h2", "--refit", "h2", "--ratios", "0.5", "--data", data)
    assert code == 0, err
    assert "even-h2" in out
    assert last("prune", tiny, "--method", "even-h2", "--ratio", "0.5", "--out", "p.safetensors")[0] == 0
    assert last("verify", tiny, "p.safetensors")[0] == 0
    assert "even-h2" in last("methods")[1]


def test_a_line_and_a_function_are_all_a_refit_takes(last, tiny, monkeypatch):
    import lastcli.reduction.refits as module

    def silent(task):
        return [dataclasses.replace(start, system=start.system.replace(C=0 * start.system.C), changed="readout")
                for start in task.start]  # fmt: skip

    monkeypatch.setattr(module, "silent", silent, raising=False)
    monkeypatch.setitem(REFITS, "silent", Refit("silent", "says nothing", "here", "lastcli.reduction.refits:silent"))
    code, _, err = last("prune", tiny, "--refit", "silent", "--ratio", "0.5", "--dry-run")
    assert code == 0, err


@pytest.mark.parametrize("name", ["lst", "", "h2"])
def test_a_name_that_is_none_is_refused_with_the_nearest(name):
    with pytest.raises(UsageError, match="no method"):
        as_method(name)
    with pytest.raises(UsageError, match="A refit is a name"):
        as_refit(3)
