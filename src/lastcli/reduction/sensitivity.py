"""How much the model's outputs move when a layer's do: what makes the residuals of different layers comparable.

Elimination knows what a layer loses relative to its own output; whether the model minds is another question. Each layer
alone is reduced until its residual is about two per cent, and the change of the model's outputs on calibration inputs,
per residual, is the layer's weight. No labels are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lastcli.engine.engines import engine_of
from lastcli.engine.precision import in_float64
from lastcli.engine.protocol import System
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import model_outputs
from lastcli.families.base import Forward
from lastcli.reduction.calibration import Progress, layer_signals
from lastcli.reduction.divergence import divergence_of

__all__ = ["layer_sensitivities", "output_change"]

# Large enough to rise above float32 rounding, small enough that the response is still proportional.
RESIDUAL = 0.02
_BATCH = 64


def layer_sensitivities(
    forward: Forward,
    params: Mapping[str, np.ndarray],
    systems: Sequence[System],
    energies: Sequence[np.ndarray],
    moments: Sequence[Any],
    split: Split,
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Change of the model's outputs per relative residual of each layer, (layers,), largest 1.

    Args:
        forward: the architecture.
        params: {tensor name: array} of the tensors it needs.
        systems: the original layers.
        energies: (sets, N) a layer, the residual reached when a state goes, with the price of its read-out
            (`Elimination.rank`).
        moments: calibrated, one a layer.
        split: calibration inputs; labels are not looked at.
        progress: called with (layers done, layers in all).
    """
    size = min(split.n, _BATCH)
    original = list(model_outputs(forward, params, systems, split, batch_size=size))
    weights = np.zeros(len(systems))
    for layer, (system, energy, moment) in enumerate(zip(systems, energies, moments)):
        reached = np.sort(energy, axis=1).mean(axis=0)
        gone = int(np.clip(np.searchsorted(reached, RESIDUAL), 1, max(system.states - 1, 1)))
        kept = np.sort(np.argsort(-energy, axis=1, kind="stable")[:, : system.states - gone], axis=1)
        engine = engine_of(system)
        again = partial(layer_signals, forward, params, systems, systems, layer, split.batches(size))
        reduced = engine.embed(system, engine.refit(system, kept, moment, again))
        changed = [*systems[:layer], reduced, *systems[layer + 1 :]]
        outputs = model_outputs(forward, params, changed, split, batch_size=size)
        change = output_change(zip(original, outputs), forward.task)
        weights[layer] = change / max(float(reached[gone - 1]), 1e-12)
        if progress is not None:
            progress(layer + 1, len(systems))
    largest = weights.max(initial=0.0)
    # a layer whose loss nobody notices still competes, at a thousandth of the most sensitive one
    return np.maximum(weights / largest, 1e-3) if largest > 0 else np.ones(len(systems))


def output_change(pairs: Iterable[tuple[np.ndarray, np.ndarray]], task: str) -> float:
    """Mean Kullback-Leibler divergence of the class probabilities, or mean squared difference, over (before, after)."""
    total, count = 0.0, 0
    for before, after in pairs:
        first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
        divergence = divergence_of(task)
        if divergence is not None:
            total, count = total + float(_divergences(divergence, first, second).sum()), count + len(first)
        else:
            total, count = total + float(((first - second) ** 2).sum()), count + first.size
    return total / max(count, 1)


# only this, not the models' forward passes, whose outputs are computed while `pairs` is gone through
@in_float64
def _divergences(divergence: Callable[[Any, Any], Any], before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.asarray(divergence(before, after))
