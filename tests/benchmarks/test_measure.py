"""The sweeps of one model, on an untrained one: what is written agrees with what `last` says."""

from __future__ import annotations

import json
from functools import partial
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


def test_what_is_measured_is_kept_and_not_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that stops in its second sweep goes on there; another model starts anew."""
    monkeypatch.setattr("benchmarks.reproduce.measure.SCORED", ())
    first, second = Comparison(("last",), ("none",), "0.5"), Comparison(("aire",), ("none",), "0.5")
    swept: list[tuple[str, ...]] = []
    real = lastcli.sweep

    def stops(model: object, **options: object) -> object:
        if options["methods"] == second.methods and not swept:
            raise KeyboardInterrupt
        swept.append(options["methods"])  # type: ignore[arg-type]
        return real(model, **options)  # type: ignore[arg-type]

    run = partial(measure_model, folder, compared=(first, second), calibration_sizes=(), report=lambda line: None)
    measure_model(folder, compared=(first,), calibration_sizes=(), report=lambda line: None)
    monkeypatch.setattr("lastcli.sweep", stops)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert [row["method"] for row in json.loads((folder / "measured.json").read_text())["rows"]] == ["last"]
    swept.append(("begin",))
    assert [row["method"] for row in run()["rows"]] == ["last", "aire"]
    assert swept == [("begin",), ("aire",)]
    run()
    assert swept == [("begin",), ("aire",)]
    save(folder / "model.safetensors", initial_variables(MODEL, 1, 1, 1), MODEL.description("regression"))
    run()
    assert swept[2:4] == [("last",), ("aire",)]


def test_inputs_of_the_training_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`inputs` and `steps` reach the sweep, and stand in every row."""
    monkeypatch.setattr("benchmarks.reproduce.measure.SCORED", ())
    data = folder.parent / "data"
    x, y = np.random.default_rng(1).standard_normal((2, 9, 12, 1)).astype(np.float32)
    Part(x, y).save(data / "train.npz")
    training = json.loads((folder / "training.json").read_text())
    training["sizes"]["train"] = 9
    (folder / "training.json").write_text(json.dumps(training))
    one = Comparison(("obs",), ("sequential",), "0.3,0.5", steps=2, inputs="train")
    (first, row) = measure_model(folder, compared=(one,), calibration_sizes=(), report=lambda line: None)["rows"]
    assert (row["steps"], row["inputs"], first["ratio"]) == (2, "train", 0.3)
    options = {"data": data / "test.npz", "calibration": data / "train.npz", "metric": "fit", "warmup": 3}
    result = lastcli.sweep(
        folder / "model.safetensors", method="obs", refit="sequential", ratios="0.3,0.5", steps=2, **options
    )
    assert row["value"] == pytest.approx(result.rows[1].value / 100, abs=1e-9)


def test_inputs_drawn_with_the_statistics_of_the_training_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps behind the true length count for nothing."""
    monkeypatch.setattr("benchmarks.reproduce.measure.SCORED", ())
    x = np.full((4, 12, 1), 5, np.uint8)
    x[::2] = 15
    x[:, 8:] = 255
    data = folder.parent / "data"
    Part(x, x, np.full(4, 8), 0.1).save(data / "train.npz")
    one = Comparison(("obs",), ("calibrated",), "0.5", inputs="drawn")
    (row,) = measure_model(folder, compared=(one,), calibration_sizes=(), report=lambda line: None)["rows"]
    options = {"data": data / "test.npz", "calibration": "drawn:length=12,mean=1,std=0.5", "metric": "fit", "warmup": 3}
    result = lastcli.sweep(folder / "model.safetensors", method="obs", refit="calibrated", ratios="0.5", **options)
    assert row["inputs"] == "drawn"
    assert row["value"] == pytest.approx(result.rows[0].value / 100, abs=1e-6)
