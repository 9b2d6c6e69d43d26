"""One trained model under every method: a sweep of the kept states, kept as JSON so that a stopped run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import lastcli
from benchmarks.mamba.tasks import characters, recall
from benchmarks.mamba.training import initial, train
from lastcli import containers
from lastcli.containers.base import TensorSource

__all__ = ["CASES", "METHODS", "Case", "key", "measured"]

# (method, refit), in the order of the table
METHODS = (
    ("random", "none"),
    ("uniform-magnitude", "none"),
    ("last", "none"),
    ("aire", "none"),
    ("contribution", "none"),
    ("obs", "calibrated"),
)
CALIBRATION = 200


@dataclass(frozen=True)
class Case:
    """What one version of Mamba is trained on, and how it is measured.

    Attributes:
        data: (seed, held_out) → inputs, labels, vocabulary.
        rises: whether the table shows the rise of the metric over the full model, else its value.
        counts: states kept of each layer.
    """

    version: int
    title: str
    metric: str
    rises: bool
    data: Callable[[int, bool], tuple[np.ndarray, np.ndarray, int]]
    width: int
    states: int
    counts: tuple[int, ...]
    steps: int
    rate: float
    layers: int = 2


def _characters(seed: int, held_out: bool) -> tuple[np.ndarray, np.ndarray, int]:
    return characters(200 if held_out else 3000, 96, seed + 1000 * held_out, held_out=held_out)


def _recall(seed: int, held_out: bool) -> tuple[np.ndarray, np.ndarray, int]:
    return recall(1000 if held_out else 20000, 8, seed + 1000 * held_out)


CASES = {
    1: Case(
        1, "Mamba 1 on characters: rise of the loss in nats", "nll", True, _characters,
        width=32, states=16, counts=(8, 4, 2), steps=800, rate=4e-3,
    ),
    2: Case(
        2, "Mamba 2 on associative recall: accuracy in percent", "accuracy", False, _recall,
        width=32, states=32, counts=(16, 8, 6), steps=1500, rate=5e-3,
    ),
}  # fmt: skip


def key(method: str, refit: str, count: int) -> str:
    """A cell of the table."""
    return f"{method} {refit} {count}"


def measured(folder: Path, case: Case, seed: int, steps: int) -> dict[str, float]:
    """{cell: value}, the full model's under "full", and "seconds" of a core; from the folder where it is there."""
    kept = folder / f"mamba{case.version}-seed{seed}-steps{steps}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    began = time.process_time()
    x, y, vocabulary = case.data(seed, False)
    tensors = initial(case.version, vocabulary, case.width, case.states, case.layers, seed)
    tensors = train(case.version, tensors, (x, y), steps, case.rate, seed)
    path = kept.with_suffix(".safetensors")
    containers.write(path, [TensorSource.of(*item) for item in tensors.items()], metadata={}, force=True)
    found = {**_swept(folder, path, case, seed, x[:CALIBRATION]), "seconds": time.process_time() - began}
    kept.write_text(json.dumps(found, indent=1))
    return found


def _swept(folder: Path, path: Path, case: Case, seed: int, calibration: np.ndarray) -> dict[str, float]:
    test = case.data(seed, True)
    np.savez(folder / "test.npz", x=test[0], y=test[1])
    np.savez(folder / "calibration.npz", x=calibration)
    found: dict[str, float] = {}
    for refit in dict.fromkeys(refit for _, refit in METHODS):
        methods = [method for method, own in METHODS if own == refit]
        result = lastcli.sweep(
            path,
            data=folder / "test.npz",
            calibration=folder / "calibration.npz",
            ratios=[str(1 - count / case.states) for count in case.counts],
            methods=methods,
            refits=refit,
            metric=case.metric,
            seed=seed,
        )
        found["full"] = result.baseline
        runs = [(method, count) for method in methods for count in case.counts]
        for (method, count), row in zip(runs, result.rows, strict=True):
            if row.layers != (count,) * case.layers:
                raise ValueError(f"{method} kept {row.layers}, not {count} states of each layer")
            found[key(method, refit, count)] = row.drop if case.rises else row.value
    return found
