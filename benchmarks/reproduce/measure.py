"""Sweep one trained model with every method: `python -m benchmarks.reproduce.measure FOLDER` (a seed's folder).

Reads `model.safetensors` there and the task's parts beside it, and writes `measured.json`: the rows of all sweeps on
the test part, the wall time of scoring, and accuracy against the number of calibration sequences.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lastcli
from benchmarks.reproduce.aggregate import Record

__all__ = ["COMPARED", "SCORED", "Comparison", "measure_model"]

RATIOS = "0:0.9:0.1"
PLAIN = ("random", "uniform-hinf", "global-hinf", "uniform-magnitude", "global-magnitude", "lamp", "last", "aire")


@dataclass(frozen=True)
class Comparison:
    """One sweep: all methods with all refits at these ratios, on the first so many calibration sequences or on all."""

    methods: tuple[str, ...]
    refits: tuple[str, ...]
    ratios: str = RATIOS
    sequences: int | None = None


# Identifying poles anew takes a hundred times as long as the rest.
POLE_SEQUENCES = 96
COMPARED = (
    Comparison(PLAIN, ("none",)),
    Comparison(("last",), ("h2", "calibrated")),
    Comparison(("obs",), ("none", "h2", "calibrated", "sequential")),
    Comparison(("obs",), ("poles",), RATIOS, POLE_SEQUENCES),
)
SCORED = (*PLAIN, "obs")
CALIBRATION_SIZES = (8, 16, 32, 64, 128)
CALIBRATION_RATIOS = "0.5,0.6,0.7,0.8"


def measure_model(
    folder: Path,
    *,
    compared: Sequence[Comparison] = COMPARED,
    calibration_sizes: Sequence[int] = CALIBRATION_SIZES,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Everything the table needs to know about one trained model."""
    training = json.loads((folder / "training.json").read_text())
    data = folder.parent / "data"
    regression = training["metric"] != "accuracy"
    # training without `clip_eigs` can leave a pole just outside the unit circle; such states are kept by every method
    options: dict[str, Any] = {
        "data": data / "test.npz",
        "calibration": data / "calibration.npz",
        "allow_unstable": True,
    }
    if regression:
        options |= {"metric": "fit", "warmup": training["warmup"]}
    model = lastcli.open(folder / "model.safetensors")
    started = time.perf_counter()
    rows: list[Record] = []
    baseline = states = None
    for one in compared:
        begin = time.perf_counter()
        few = one.sequences is not None and one.sequences < training["sizes"]["calibration"]
        limit = {"calibration_limit": str(one.sequences)} if few else {}
        result = lastcli.sweep(model, methods=one.methods, refits=one.refits, ratios=one.ratios, **options, **limit)
        baseline, states = result.baseline, result.states
        rows += records(training["task"], training["seed"], result)
        report(
            f"{training['task']} seed {training['seed']}: {', '.join(one.methods)} with {', '.join(one.refits)}"
            f" in {time.perf_counter() - begin:.1f} s"
        )
    measured = {
        "task": training["task"],
        "seed": training["seed"],
        "metric": "fit" if regression else "accuracy",
        "baseline": (baseline or 0.0) / (100.0 if regression else 1.0),
        "states": states,
        "rows": [asdict(row) for row in rows],
        "scoring": {method: _scoring_seconds(folder / "model.safetensors", method) for method in SCORED},
        "calibration": _calibration_study(model, options, training["sizes"]["calibration"], calibration_sizes),
        "seconds": round(time.perf_counter() - started, 1),
    }
    (folder / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
    return measured


def records(task: str, seed: int, result: Any) -> list[Record]:
    """The rows of a `SweepResult` as records: fit indices become fractions."""
    scale = 100.0 if result.metric == "fit" else 1.0
    return [
        Record(task, seed, row.method, row.refit, row.ratio, row.value / scale, row.drop, row.states, row.parameters)
        for row in result.rows
    ]


def _scoring_seconds(path: Path, method: str, repeats: int = 3) -> float:
    """Wall time from the file to the scores of the whole model, programs compiled before; the best of a few."""
    seconds = []
    for _ in range(repeats + 1):
        # Opened anew: an open model remembers its systems and their norms.
        started = time.perf_counter()
        with lastcli.open(path) as model:
            lastcli.score(model, method=method, allow_unstable=True)
        seconds.append(time.perf_counter() - started)
    return round(min(seconds[1:]), 5)


def _calibration_study(
    model: Any, options: dict[str, Any], available: int, sizes: Sequence[int]
) -> list[dict[str, float]]:
    found = []
    for size in [size for size in sizes if size < available] + [available]:
        result = lastcli.sweep(
            model,
            methods=("obs",),
            refits=("calibrated",),
            ratios=CALIBRATION_RATIOS,
            calibration_limit=str(size),
            **options,
        )
        found += [{"examples": size, "ratio": row.ratio, "drop": row.drop} for row in result.rows]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--force", action="store_true", help="measure again what is measured")
    options = parser.parse_args()
    for folder in options.folders:
        if options.force or not (folder / "measured.json").exists():
            measure_model(folder)


if __name__ == "__main__":
    main()
