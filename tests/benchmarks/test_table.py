"""Aggregation and rendering on made-up sweeps with known answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from benchmarks.marks import between_marks
from benchmarks.reproduce.aggregate import Record, curves, ratio_within, summaries
from benchmarks.reproduce.collect import collect
from benchmarks.reproduce.render import csv_text, markdown
from benchmarks.reproduce.table import write_tables

RATIOS = (0.0, 0.1, 0.2, 0.3)
# Drops in points for each task, method and ratio.
DROPS = {
    ("digits", "last"): (0, 0.5, 1.0, 4.0),
    ("digits", "obs"): (0, 0.0, 0.2, 0.4),
    ("listops", "last"): (0, 2.0, 0.0, 0.0),
    ("listops", "obs"): (0, 0.1, 0.3, 3.0),
}


def made_up(seeds: int = 2) -> list[Record]:
    """Seeds differ by ±0.2 points around the stated drops."""
    found = []
    for (task, method), drops in DROPS.items():
        for seed in range(seeds):
            for ratio, points in zip(RATIOS, drops):
                drop = (points + (0.2 if seed else -0.2) * (ratio > 0)) / 100
                found.append(Record(task, seed, method, "none", ratio, 0.9 - drop, drop, 100))
    return found


def on_disk(folder: Path) -> Path:
    for record in made_up():
        path = folder / "small" / record.task / f"seed-{record.seed}"
        path.mkdir(parents=True, exist_ok=True)
        rows = [vars(row) for row in made_up() if (row.task, row.seed) == (record.task, record.seed)]
        measured = {
            "task": record.task, "seed": record.seed, "metric": "accuracy", "baseline": 0.9, "states": 100,
            "rows": rows, "scoring": {"last": 0.01, "obs": 0.2}, "seconds": 60.0,
            "calibration": [{"examples": size, "ratio": 0.5, "drop": 0.3 / size} for size in (8, 16)],
        }  # fmt: skip
        training = {
            "note": "Made up.", "length": 64,
            "sizes": dict.fromkeys(("train", "validation", "calibration", "test"), 10),
            "setting": {"model": {"layers": 2, "d_model": 8, "ssm_size": 16, "conj_sym": True, "bidirectional": False}},
            "seconds": 30.0, "device": "cpu",
        }  # fmt: skip
        (path / "measured.json").write_text(json.dumps(measured))
        (path / "training.json").write_text(json.dumps(training))
    return folder / "small"


def test_curves_average_over_seeds() -> None:
    found = {(curve.task, curve.column.method): curve for curve in curves(made_up())}
    curve = found["digits", "last"]
    assert curve.seeds == 2
    assert curve.drops == pytest.approx((0, 0.005, 0.01, 0.04))
    assert curve.values == pytest.approx((0.9, 0.895, 0.89, 0.86))
    # Sample standard deviation of ±0.2 points.
    assert curve.spreads == pytest.approx((0, 0.002 * 2**0.5, 0.002 * 2**0.5, 0.002 * 2**0.5))


def test_largest_ratio_within_a_point() -> None:
    assert ratio_within(RATIOS, (0, 0.005, 0.01, 0.04)) == 0.2
    assert ratio_within(RATIOS, (0, 0.02, 0.0, 0.0)) == 0.0
    assert ratio_within(RATIOS, (0, 0, 0, 0)) == 0.3
    assert ratio_within((0.2, 0.0, 0.1), (0.5, 0.0, 0.004)) == 0.1
    assert ratio_within(RATIOS, (0, float("nan"), 0, 0)) == 0.0


def test_summaries_in_the_papers_manner() -> None:
    found = {summary.column.method: summary for summary in summaries(curves(made_up()))}
    last, obs = found["last"], found["obs"]
    # LAST: 20% on digits (1.0 lost) and 0% on listops.
    assert last.own_ratio == pytest.approx(0.1)
    assert last.own_loss == pytest.approx(0.005)
    assert last.loss_at_last == pytest.approx(0.005)
    # At LAST's ratios obs loses 0.2 on digits and nothing on listops; its own ratios are 30% and 20%.
    assert obs.loss_at_last == pytest.approx(0.001)
    assert obs.own_ratio == pytest.approx(0.25)
    assert obs.own_loss == pytest.approx(0.0035)
    assert obs.mean_drops == pytest.approx((0, 0.0005, 0.0025, 0.017))
    assert obs.within == 0.2


def test_files(tmp_path: Path) -> None:
    folder = on_disk(tmp_path)
    out = tmp_path / "docs"
    out.mkdir()
    (out / "results.md").write_text(
        "# Results\n\nWhat it means.\n\n<!-- small: begin -->old<!-- small: end -->\n\nAfter.\n"
    )
    path = write_tables(folder, out, "2026-01-01", wall=120.0)
    text = path.read_text()
    assert "old" not in text
    assert text.startswith("# Results\n\nWhat it means.")
    assert text.endswith("After.\n")
    assert "2 minutes by the clock" in text
    assert "| obs | 2 | 25 | 0.35 | 0.10 |" in text
    assert "90.0 ± 0.0" in text
    assert "| 8 | 4 | 3.75 |\n| all | 4 | 1.88 |" in text
    rows = list(csv.DictReader((out / "results-small.csv").read_text().splitlines()))
    assert len(rows) == len(DROPS) * len(RATIOS)
    assert [row["drop_mean"] for row in rows if row["task"] == "digits"][1] == "0.005000"
    for name in ("results-small.svg", "results-small-tasks.svg"):
        first = (out / name).read_bytes()
        assert b"<svg" in first
    before = {
        name: (out / name).read_bytes() for name in ("results.md", "results-small.svg", "results-small-tasks.svg")
    }
    write_tables(folder, out, "2026-01-01", wall=120.0)
    assert {name: (out / name).read_bytes() for name in before} == before


def test_marks_are_added_where_missing() -> None:
    assert between_marks("# A\n", "x", "t") == "# A\n\n<!-- x: begin -->\n\nt\n\n<!-- x: end -->\n"


def test_nothing_measured(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no measured model"):
        collect(tmp_path)


def test_markdown_and_csv_agree_with_the_collection(tmp_path: Path) -> None:
    collection = collect(on_disk(tmp_path))
    assert collection.tasks == ("listops", "digits")
    assert csv_text(collection).count("\n") == 1 + len(DROPS) * len(RATIOS)
    assert markdown(collection).count("### ") == 7


def test_columns_of_steps_and_of_training_inputs(tmp_path: Path) -> None:
    """They are rows of their own, with what was measured of them and a word on what they are."""
    folder = on_disk(tmp_path)
    for path in (folder / "digits").glob("seed-*/measured.json"):
        measured = json.loads(path.read_text())
        more = {"method": "obs", "refit": "match", "ratio": 0.3, "value": 0.89, "drop": 0.01, "states": 70}
        measured["rows"].append({**measured["rows"][0], **more, "steps": 3, "inputs": "train"})
        measured["rows"].append({**measured["rows"][0], **more, "drop": 0.04})
        path.write_text(json.dumps(measured))
    text = markdown(collect(folder))
    assert "| obs + match, 3 steps, training inputs (1 tasks) | – | – | – | 1.0 |" in text
    assert "| obs + match (1 tasks) | – | – | – | 4.0 |" in text
    assert "| obs + match, 3 steps, training inputs | – | – | – | 89.0 ± 0.0 | 30% |" in text
    assert "labels unused" in text
    assert "counts as 0" in text
    rows = list(csv.DictReader(csv_text(collect(folder)).splitlines()))
    assert [(row["steps"], row["inputs"]) for row in rows if row["refit"] == "match"] == [
        ("3", "train"),
        ("1", "calibration"),
    ]
