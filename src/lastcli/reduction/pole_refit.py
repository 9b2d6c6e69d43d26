"""Pole refit over a whole model: layer after layer, on what the already reduced layers really deliver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from lastcli.engine.diagonal import refit_on_signals
from lastcli.engine.embedding import embed
from lastcli.engine.poles import refit_poles
from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.evaluation.data import Batch
from lastcli.families.base import Forward
from lastcli.reduction.calibration import Progress, layer_signals, reusable, share_of, signal_moments
from lastcli.reduction.recorded import LayerInputs

__all__ = ["recorded_pole_refit", "sequential_pole_refit"]


def sequential_pole_refit(
    forward: Forward,
    params: Mapping[str, np.ndarray],
    systems: Sequence[DiagonalSystem],
    reductions: Sequence[Reduction],
    batches: Iterable[Batch],
    *,
    held_back: float = 0.2,
    steps: int = 200,
    reselect: bool = False,
    pinned: Sequence[np.ndarray] | None = None,
    progress: Progress | None = None,
) -> list[Reduction]:
    """Identify poles, B, C and D of every reduced layer anew; target the original layer's output, no labels.

    Args:
        forward: the architecture.
        params: {tensor name: array} of the tensors `forward` needs.
        systems: the original layers, NumPy float64.
        reductions: where to start, one a layer.
        batches: can be iterated any number of times.
        held_back: share of the sequences that only decide when a layer is done.
        steps: most iterations a layer.
        reselect: start from the states that elimination keeps on the inputs that really arrive (as many as before);
            not for reductions that moved their poles already.
        pinned: (sets, N) bool a layer, states that such a choice must keep.
        progress: called with (iterations done, iterations at most).

    Raises:
        UnsupportedModelError: a layer whose poles are bound to each other.
        InputError: too few calibration sequences.
    """
    batches = reusable(batches)
    current = list(systems)
    found: list[Reduction] = []
    for i, (system, start) in enumerate(zip(systems, reductions)):
        if start.changed != "all":
            signals = partial(layer_signals, forward, params, systems, current, i)
            moments = partial(signal_moments, system, signals, batches)
            held = None if pinned is None else pinned[i]
            start = refit_on_signals(system, start.kept, moments, partial(signals, batches), reselect, held)
        report = share_of(progress, i, len(systems))
        arriving = layer_signals(forward, params, systems, current, i, batches)
        found.append(refit_poles(system, start, arriving, held_back=held_back, steps=steps, progress=report))
        current[i] = embed(system, found[-1])
        if report is not None:
            report(steps, steps)
    return found


def recorded_pole_refit(
    systems: Sequence[DiagonalSystem],
    reductions: Sequence[Reduction],
    recorded: LayerInputs,
    *,
    held_back: float = 0.2,
    steps: int = 200,
    progress: Progress | None = None,
) -> list[Reduction]:
    """The same with every layer for itself, on what arrived at it in the original model; arguments as above.

    What a layer loses is not made good by those behind it: their inputs are recorded, and stay the original model's.
    """
    found = []
    for i, (system, start) in enumerate(zip(systems, reductions)):
        report = share_of(progress, i, len(systems))
        signals = recorded.signals(i, system)
        found.append(refit_poles(system, start, signals, held_back=held_back, steps=steps, progress=report))
        if report is not None:
            report(steps, steps)
    return found
