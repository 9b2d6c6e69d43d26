"""States with |λ| >= 1 are kept by every method and through every refit, as they are, unless they are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import lastcli
from tests.conftest import write_s5

pytestmark = pytest.mark.usefixtures("short_searches")


@pytest.fixture
def wild(tmp_path, monkeypatch):
    """A tiny S5 whose third state of the second layer has |λ| a little above 1, and data for it."""
    monkeypatch.chdir(tmp_path)

    def change(arrays):
        for name, array in arrays.items():
            if "layers_1/seq/Lambda_re" in name:
                array[2] = 0.002

    rng = np.random.default_rng(5)
    np.savez(tmp_path / "c.npz", x=rng.normal(size=(16, 9, 3)).astype(np.float32))
    return write_s5(tmp_path / "wild.safetensors", change=change, clip_eigs=False)


@pytest.mark.parametrize(
    ("method", "refit"),
    [("last", "none"), ("aire", "h2"), ("obs", "calibrated"), ("obs", "sequential"), ("obs", "poles"),
     ("balanced", "none"), ("last", "poles")],
)  # fmt: skip
@pytest.mark.parametrize("more", [(), ("--match-output",)], ids=["", "matched"])
def test_an_unstable_state_is_kept_and_its_pole_stays(last, wild, method, refit, more):
    code, out, err = last(
        "prune", wild, "--method", method, "--refit", refit, "--states", "4", "--out",
        "o.safetensors", "--calibration", "c.npz", "--json", *more,
    )  # fmt: skip
    assert code == 0, err
    kept = json.loads(out)["layers"][1]["kept"]
    with lastcli.open(wild) as before, lastcli.open("o.safetensors") as after:
        old, new = before.systems[1].poles[0], after.systems[1].poles[0]
        assert np.abs(old[2]) > 1
        assert np.abs(new - old[2]).min() < 1e-6
        assert (np.abs(new) >= 1).sum() == 1
    if method != "balanced":
        assert 2 in kept


def test_unstable_states_are_named_with_their_energy_over_the_sequence(last, wild):
    code, out, err = last("score", wild, "--json")
    assert code == 0, err
    found = json.loads(out)
    (layer,) = found["unstable"]
    with lastcli.open(wild) as model:
        system = model.systems[1]
        strength = (np.abs(system.B[0, 2]) ** 2).sum() * (np.abs(system.C[0, 0, :, 2]) ** 2).sum()
        wanted = strength * (np.abs(system.poles[0, 2]) ** (2 * np.arange(1000))).sum()
    assert (layer["layer"], layer["states"], layer["steps"]) == (found["layers"][1]["name"], [2], 1000)
    assert layer["energy"] == [pytest.approx(wanted, rel=1e-9)]
    assert found["layers"][1]["energy"][2] is None
    assert "state 2" in found["notes"][0]
    assert last("score", wild, "--refuse-unstable")[0] == 4


@pytest.mark.parametrize("method", ["random", "uniform-magnitude"])
def test_verify_finds_the_states_that_a_calibrated_run_keeps_beside_one_on_the_circle(last, tmp_path, method):
    """Calibration inputs change what is measured, not which states a ranking without them has to keep."""

    def change(arrays):
        for name, array in arrays.items():
            if "layers_1/seq/Lambda_re" in name:
                array[:] = 1e-7

    rng = np.random.default_rng(5)
    np.savez(tmp_path / "c.npz", x=rng.normal(size=(16, 9, 3)).astype(np.float32))
    path, out = write_s5(tmp_path / "m.safetensors", change=change, clip_eigs=False), tmp_path / "o.safetensors"
    options = ("--states", "4", "--method", method, "--calibration", tmp_path / "c.npz", "--refit", "calibrated")
    code, _, err = last("prune", path, *options, "--out", out)
    assert code == 0, err
    code, found, err = last("verify", path, out, "--calibration", tmp_path / "c.npz", "--json")
    checks = {check["name"]: check for check in json.loads(found)["checks"]}
    assert checks["selection"]["ok"], checks["selection"]
