"""Refits that need the whole model: layer after layer on what really arrives, new poles, and the outputs end to end.

All take reductions (or kept states) of a checkpoint's layers and calibration batches, and give reductions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lastcli.evaluation.data import Batches

__all__ = ["done_bar", "match_output", "poles", "sequential"]

# Iterations at most; both searches stop earlier where a held-back part of the calibration split says so.
POLE_STEPS = 200
MATCH_STEPS = 800

Progress = Callable[..., Any] | None


def sequential(
    checkpoint: Checkpoint, kept: Sequence[np.ndarray], batches: Batches, progress: Progress = None
) -> list[Reduction]:
    """Read-outs refitted layer after layer, on inputs from the layers already reduced."""
    from lastcli.reduction.calibration import sequential_refit

    forward, params = checkpoint.require_forward(), checkpoint.params
    with done_bar(progress, "Refitting", len(batches) * len(kept)) as advance:
        return sequential_refit(forward, params, checkpoint.systems, kept, batches, progress=advance)


def poles(
    checkpoint: Checkpoint,
    start: Sequence[Reduction],
    batches: Batches,
    progress: Progress = None,
    *,
    reselect: bool = False,
) -> list[Reduction]:
    """Poles, B, C and D of every layer identified anew, layer after layer.

    Args:
        reselect: start each layer from the states that elimination keeps on the inputs that really arrive.
    """
    from lastcli.reduction.pole_refit import sequential_pole_refit

    with done_bar(progress, "Refitting poles", len(start) * POLE_STEPS) as advance:
        return sequential_pole_refit(
            checkpoint.require_forward(),
            checkpoint.params,
            checkpoint.systems,
            start,
            batches,
            steps=POLE_STEPS,
            reselect=reselect,
            progress=advance,
        )


def match_output(
    checkpoint: Checkpoint, start: Sequence[Reduction], batches: Batches, progress: Progress = None, *, seed: int = 0
) -> list[Reduction]:
    """All reduced layers fitted together to the original model's outputs; no labels."""
    from lastcli.reduction import match_output as matching

    with done_bar(progress, "Matching outputs", MATCH_STEPS) as advance:
        matched = matching.match_output(
            checkpoint.require_forward(),
            checkpoint.params,
            [reduction.system for reduction in start],
            checkpoint.systems,
            batches,
            steps=MATCH_STEPS,
            seed=seed,
            progress=advance,
        )
    return [_moved(reduction, system) for reduction, system in zip(start, matched)]


def _moved(before: Reduction, system: DiagonalSystem) -> Reduction:
    """A reduction whose system was fitted further; the poles of oscillators stay where they are."""
    if system is before.system:
        return before
    same = np.array_equal(system.poles, before.system.poles) and np.array_equal(system.B, before.system.B)
    changed = "readout" if same and before.changed != "all" else "all"
    return Reduction(before.kept, system, changed)


@contextmanager
def done_bar(progress: Progress, label: str, total: int) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar behind callbacks of the form (done, total)."""
    if progress is None:
        yield None
        return
    with progress(label, total) as bar:
        reached = 0

        def advance(done: int, _: int) -> None:
            nonlocal reached
            bar.advance(done - reached)
            reached = done

        yield advance
