"""The sweeps of one model, on an untrained one: what is written agrees with what `last` says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.reproduce.checkpoints import save
from benchmarks.reproduce.initialisation import initial_variables
from benchmarks.reproduce.measure import Comparison, measure_model
from benchmarks.reproduce.settings import Architecture
from benchmarks.reproduce.splits import Part

import lastcli

MODEL = Architecture(1, 4, 12, mode="sequence", norm="layer")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sequence regression: six sequences of 12 steps."""
    draw = np.random.default_rng(0)
    seed = tmp_path / "tanks" / "seed-0"
    save(seed / "model.safetensors", initial_variables(MODEL, 1, 1, 0), MODEL.description("regression"))
    (tmp_path / "tanks" / "data").mkdir()
    for name in ("test", "calibration"):
        x, y = draw.standard_normal((2, 6, 12, 1)).astype(np.float32)
        Part(x, y).save(tmp_path / "tanks" / "data" / f"{name}.npz")
    training = {"task": "tanks", "seed": 0, "metric": "mse", "warmup": 3, "sizes": {"calibration": 6}}
    (seed / "training.json").write_text(json.dumps(training))
    return seed


def test_rows_and_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.reproduce.measure.SCORED", ("last",))
    compared = (
        Comparison(("last",), ("none",), "0,0.5"),
        Comparison(("obs",), ("calibrated",), "0.5"),
    )
    measured = measure_model(folder, compared=compared, calibration_sizes=(2, 8), report=lambda line: None)
    assert json.loads((folder / "measured.json").read_text()) == measured
    found = [(row["method"], row["refit"], row["ratio"]) for row in measured["rows"]]
    assert found == [("last", "none", 0.0), ("last", "none", 0.5), ("obs", "calibrated", 0.5)]
    assert measured["states"] == 6
    # The fit index is kept as a fraction and a whole point is 0.01.
    data = folder.parent / "data" / "test.npz"
    baseline = lastcli.evaluate(folder / "model.safetensors", data=data, metric="fit", warmup=3).value
    assert measured["baseline"] == pytest.approx(baseline / 100, rel=1e-6)
    half = measured["rows"][1]
    assert half["value"] + half["drop"] == pytest.approx(measured["baseline"], rel=1e-6)
    # 8 sequences are more than there are; the whole part comes last.
    assert [entry["examples"] for entry in measured["calibration"]] == [2] * 4 + [6] * 4
    assert measured["scoring"]["last"] > 0


def test_a_comparison_on_few_sequences(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `sequences` says is what the refit sees: the same numbers as a sweep with that limit."""
    monkeypatch.setattr("benchmarks.reproduce.measure.SCORED", ())
    compared = (Comparison(("obs",), ("calibrated",), "0.5", 2), Comparison(("obs",), ("calibrated",), "0.5", 60))
    few, every = measure_model(folder, compared=compared, calibration_sizes=(), report=lambda line: None)["rows"]
    data = folder.parent / "data"
    options = {"data": data / "test.npz", "calibration": data / "calibration.npz", "metric": "fit", "warmup": 3}
    for row, limit in ((few, {"calibration_limit": "2"}), (every, {})):
        result = lastcli.sweep(
            folder / "model.safetensors", method="obs", refit="calibrated", ratios="0.5", **options, **limit
        )
        assert row["value"] == pytest.approx(result.rows[0].value / 100, abs=1e-9)
    assert few["value"] != every["value"]
