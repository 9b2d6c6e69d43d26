"""States with |λ| >= 1 are kept by every method and through every refit, as they are, unless they are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import lastcli
from tests.conftest import write_s5


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
