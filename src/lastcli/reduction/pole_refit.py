"""Pole refit over a whole model: layer after layer, on what the already reduced layers really deliver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from lastcli.engine.diagonal import refit_on_signals
from lastcli.engine.embedding import embed
from lastcli.engine.poles import refit_poles
from lastcli.engine.signals import SIGNAL_BYTES, sequence_bytes
from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.evaluation.data import Batch
from lastcli.families.base import Forward
from lastcli.reduction.calibration import Progress, layer_signals, reusable, share_of, signal_moments
from lastcli.reduction.recorded import LayerInputs

__all__ = ["recorded_pole_refit", "sequential_pole_refit"]

# u, the target and the weights of one batch, as `calibration.layer_signals` yields them.
Signal = tuple[np.ndarray, np.ndarray, np.ndarray]


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
        signals = _Arriving(partial(layer_signals, forward, params, systems, list(current), i), start)
        if start.changed != "all":
            moments = partial(signal_moments, system, signals, batches)
            held = None if pinned is None else pinned[i]
            start = refit_on_signals(system, start.kept, moments, partial(signals, batches), reselect, held)
        report = share_of(progress, i, len(systems))
        arriving = signals.first(batches)
        found.append(refit_poles(system, start, arriving, held_back=held_back, steps=steps, progress=report))
        current[i] = embed(system, found[-1])
        if report is not None:
            report(steps, steps)
    return found


class _Arriving:
    """The signals of a layer, of which the first are kept while they are read for its moments.

    Args:
        make: the signals of given batches.
        start: where the search begins that takes the first of them, as many as `SIGNAL_BYTES` hold.
    """

    def __init__(self, make: Callable[[Iterable[Batch]], Iterable[Signal]], start: Reduction) -> None:
        self._make, self._start = make, start
        self._kept: tuple[Iterable[Batch], list[Signal]] | None = None

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Signal]:
        """All signals of the batches."""
        kept: list[Signal] = []
        room = SIGNAL_BYTES
        for signal in self._make(batches):
            u, _, weights = signal
            if room > 0:
                kept.append(signal)
                room -= sequence_bytes(self._start.system, u.shape[1]) * int((weights.sum(axis=1) > 0).sum())
            yield signal
        self._kept = batches, kept

    def first(self, batches: Iterable[Batch]) -> Iterable[Signal]:
        """What a search takes of the signals of the batches; made again where others were read last."""
        if self._kept is not None and self._kept[0] is batches:
            return self._kept[1]
        return self._make(batches)


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
