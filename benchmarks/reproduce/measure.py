"""Sweep one trained model with every method: `python -m benchmarks.reproduce.measure FOLDER` (a seed's folder).

Reads `model.safetensors` there and the task's parts beside it, and writes `measured.json`: the rows of all sweeps on
the test part, the wall time of scoring, and accuracy against the number of calibration sequences. Every sweep is
written when it is done, so that a stopped run keeps what it has and goes on with the next one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lastcli
from benchmarks.reproduce.aggregate import DRAWN, TRAINING, Record

__all__ = ["COMPARED", "SCORED", "Comparison", "measure_model", "model_options"]

RATIOS = "0:0.9:0.1"
PLAIN = ("random", "uniform-hinf", "global-hinf", "uniform-magnitude", "global-magnitude", "lamp", "last", "aire")


@dataclass(frozen=True)
class Comparison:
    """One sweep: all methods with all refits at these ratios.

    Attributes:
        sequences: the refits see the first so many sequences, or all.
        steps: stages of one pruning; all ratios then lie on one descent.
        inputs: the part of the data whose inputs the refits see, or what stands in their place.
    """

    methods: tuple[str, ...]
    refits: tuple[str, ...]
    ratios: str = RATIOS
    sequences: int | None = None
    steps: int = 1
    inputs: str = "calibration"

    @property
    def key(self) -> str:
        """What identifies it in a file."""
        return json.dumps(asdict(self))


# New poles and matched outputs take a hundred times as long as the rest. Below these ratios there is little to win: the
# plain calibrated refits of obs lose a point or two there on average.
POLE_RATIOS, MATCH_RATIOS = "0.7,0.8,0.9", "0.8,0.9"
POLE_SEQUENCES = 96
COMPARED = (
    Comparison(PLAIN, ("none",)),
    Comparison(("last",), ("h2", "calibrated")),
    Comparison(("obs",), ("none", "h2", "calibrated", "sequential")),
    Comparison(("balanced", "balanced-dc"), ("none",)),
    Comparison(("obs",), ("calibrated",), inputs=DRAWN),
    Comparison(("obs",), ("poles",), POLE_RATIOS, POLE_SEQUENCES),
    Comparison(("obs",), ("match",), "0.9"),
    Comparison(("obs",), ("match",), "0.9", inputs=TRAINING),
    Comparison(("obs",), ("match",), MATCH_RATIOS, steps=2, inputs=TRAINING),
)
SCORED = (*PLAIN, "obs")
CALIBRATION_SIZES = (8, 16, 32, 64, 128)
CALIBRATION_RATIOS = "0.5,0.6,0.7,0.8"


def measure_model(
    folder: Path,
    *,
    compared: Sequence[Comparison] = COMPARED,
    calibration_sizes: Sequence[int] = CALIBRATION_SIZES,
    force: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Everything the table needs to know about one trained model; what the file has already is not measured again."""
    training = json.loads((folder / "training.json").read_text())
    regression = training["metric"] != "accuracy"
    measured = {} if force else _measured_before(folder)
    if not measured:
        measured = {
            "model": _digest(folder),
            "task": training["task"],
            "seed": training["seed"],
            "metric": "fit" if regression else "accuracy",
            "baseline": None,
            "states": None,
            "rows": [],
            "done": [],
            "scoring": {},
            "calibration": [],
            "seconds": 0.0,
        }
    model = lastcli.open(folder / "model.safetensors")
    for one in compared:
        if one.key in measured["done"]:
            continue
        begin = time.perf_counter()
        result = _sweep(model, folder, training, one)
        measured["baseline"] = result.baseline / (100.0 if regression else 1.0)
        measured["states"] = result.states
        measured["rows"] += [asdict(row) for row in records(training["task"], training["seed"], result, one)]
        measured["done"].append(one.key)
        _write(folder, measured, begin)
        report(
            f"{training['task']} seed {training['seed']}: {', '.join(one.methods)} with {', '.join(one.refits)}, "
            f"{one.steps} steps, {one.inputs} in {time.perf_counter() - begin:.1f} s"
        )
    begin = time.perf_counter()
    if not measured["scoring"]:
        measured["scoring"] = {method: _scoring_seconds(folder / "model.safetensors", method) for method in SCORED}
        _write(folder, measured, begin)
    if not measured["calibration"]:
        options = model_options(folder, training)
        begin = time.perf_counter()
        measured["calibration"] = _calibration_study(
            model, options, training["sizes"]["calibration"], calibration_sizes
        )
        _write(folder, measured, begin)
    return measured


def _measured_before(folder: Path) -> dict[str, Any]:
    """What an earlier run measured of this very model; empty where there is nothing."""
    path = folder / "measured.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return known if known.get("model") == _digest(folder) else {}


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def _write(folder: Path, measured: dict[str, Any], begin: float) -> None:
    measured["seconds"] = round(measured["seconds"] + time.perf_counter() - begin, 1)
    fresh = folder / "measured.json.new"
    fresh.write_text(json.dumps(measured, indent=1) + "\n")
    fresh.replace(folder / "measured.json")


def model_options(folder: Path, training: dict[str, Any], inputs: str = "calibration") -> dict[str, Any]:
    """What a sweep of a trained model is given: its test part, and the inputs of a refit."""
    data = folder.parent / "data"
    # training without `clip_eigs` can leave a pole just outside the unit circle; such states are kept by every method
    options: dict[str, Any] = {
        "data": data / "test.npz",
        "calibration": _drawn(data) if inputs == DRAWN else data / f"{inputs}.npz",
        "allow_unstable": True,
    }
    if training["metric"] != "accuracy":
        options |= {"metric": "fit", "warmup": training["warmup"]}
    return options


def _drawn(data: Path) -> str:
    """Noise with the statistics of the training inputs."""
    with np.load(data / "train.npz") as arrays:
        x = arrays["x"]
        scale = float(arrays["scale"]) if "scale" in arrays else None
        lengths = arrays["lengths"] if "lengths" in arrays else np.full(len(x), x.shape[1])
    text = f"drawn:length={x.shape[1]}"
    if x.dtype.kind in "iu" and scale is None:  # tokens
        return text
    true = x[np.arange(x.shape[1]) < lengths[:, None]].astype(np.float64) * (scale or 1.0)
    return f"{text},mean={true.mean():.6g},std={true.std():.6g}"


def _sweep(model: Any, folder: Path, training: dict[str, Any], one: Comparison) -> Any:
    options = model_options(folder, training, one.inputs)
    if one.sequences is not None and one.sequences < training["sizes"][one.inputs]:
        options["calibration_limit"] = str(one.sequences)
    return lastcli.sweep(model, methods=one.methods, refits=one.refits, ratios=one.ratios, steps=one.steps, **options)


def records(task: str, seed: int, result: Any, one: Comparison) -> list[Record]:
    """The rows of a `SweepResult` as records: fit indices become fractions."""
    scale = 100.0 if result.metric == "fit" else 1.0
    return [
        Record(
            task,
            seed,
            row.method,
            row.refit,
            row.ratio,
            row.value / scale,
            row.drop,
            row.states,
            row.parameters,
            steps=one.steps,
            inputs=one.inputs,
        )
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
        measure_model(folder, force=options.force)


if __name__ == "__main__":
    main()
