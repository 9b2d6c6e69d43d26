"""The refits, one function each: what the kept states (or the new ones) are made to say.

Each takes a `Task` and gives one reduction a layer; `lastcli.plan.refits.REFITS` names them. All that needs the whole
model (layer after layer on what really arrives, new poles, the outputs end to end) lies in a module of its own here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import Reduction, System
from lastcli.engine.system import diagonal
from lastcli.model.checkpoint import Checkpoint
from lastcli.parallel import layers
from lastcli.plan import Refit
from lastcli.plan.registries import function_at

if TYPE_CHECKING:
    from lastcli.evaluation.data import Batches
    from lastcli.reduction.lessons import Lessons
    from lastcli.reduction.recorded import LayerInputs
    from lastcli.reduction.unfinished import Unfinished

__all__ = [
    "Task",
    "apply",
    "calibrated",
    "calibrated_drive",
    "done_bar",
    "h2",
    "match",
    "match_output",
    "none",
    "poles",
    "poles_match",
    "sequential",
]

# Iterations at most; both searches stop earlier where a held-back part of the calibration split says so.
POLE_STEPS = 200
MATCH_STEPS = 800

# Matrices as large as the moments that a refit of one layer holds at a time.
_MATRICES = 4

Progress = Callable[..., Any] | None


@dataclass(frozen=True)
class Task:
    """What a refit is given.

    Attributes:
        checkpoint: the original model.
        start: one reduction a layer: the kept states as they are, or what a method that moves the poles made.
        moved: whether the poles of `start` are its own.
        reselect: whether a refit that goes layer after layer may choose the kept states anew on what really arrives.
        systems: the layers that `start` was cut from; those of the checkpoint, or of an earlier stage of one pruning.
        pinned: (sets, N) bool a layer, states that stay as they are whatever happens; None for no such states.
        moments: second moments of every original layer, "h2" or "calibrated".
        batches: the calibration inputs, or the sample of them that the refit starts on; raises UsageError where there
            are none.
        lessons: minibatches of all calibration inputs with the original's answers, for fitting the outputs.
        progress: the factory of progress bars, or None.
        unfinished: where the matching of outputs is kept, and taken up again; None for nowhere.
        recorded: inputs of the layers alone, where there are no batches of the model's; None elsewhere.
    """

    checkpoint: Checkpoint
    systems: Sequence[System]
    start: Sequence[Reduction]
    moved: bool
    reselect: bool
    pinned: Sequence[np.ndarray] | None
    moments: Callable[[str], Sequence[Any]]
    batches: Callable[[], Batches]
    lessons: Callable[[], Lessons]
    progress: Progress = None
    unfinished: Unfinished | None = None
    recorded: LayerInputs | None = None

    @property
    def kept(self) -> list[np.ndarray]:
        """The kept states (sets, K) of every layer."""
        return [reduction.kept for reduction in self.start]


def apply(refit: Refit, task: Task) -> list[Reduction]:
    """The reductions after a refit; its function is found where `Refit.run` says."""
    return function_at(refit.run)(task)


def none(task: Task) -> list[Reduction]:
    """The kept states say what they said before."""
    return list(task.start)


def h2(task: Task) -> list[Reduction]:
    """The H2-optimal read-out under white noise, for the original's poles or for new ones."""
    if not task.moved:
        return _on_moments(task, "h2")
    from lastcli.engine.reductions import refit_moved

    return [refit_moved(diagonal(system), reduction) for system, reduction in zip(task.systems, task.start)]


def calibrated(task: Task) -> list[Reduction]:
    """The best read-out on the calibration inputs of every original layer."""
    return _on_moments(task, "calibrated")


def calibrated_drive(task: Task) -> list[Reduction]:
    """Of every layer for itself, B fitted after the calibrated read-out, and then the read-out once more."""
    from lastcli.engine.selective.drive import fit_drive

    found: list[Reduction] = []
    with done_bar(task.progress, "Refitting B", len(task.systems)) as advance:
        for index, (system, start) in enumerate(zip(task.systems, calibrated(task))):
            fitted = fit_drive(system, start.system, partial(_inputs_again, task, index))  # type: ignore[arg-type]
            found.append(Reduction(start.kept, fitted, "all"))
            if advance is not None:
                advance(index + 1, len(task.systems))
    return found


def _on_moments(task: Task, source: str) -> list[Reduction]:
    kept, moments = task.kept, task.moments(source)

    def refitted(layer: int) -> Reduction:
        system = task.systems[layer]
        return engine_of(system).refit(system, kept[layer], moments[layer], partial(_inputs_again, task, layer))

    if not all(system.time_invariant for system in task.systems):
        return [refitted(layer) for layer in range(len(kept))]  # each may run the model again
    from lastcli.reduction.layer_moments import size_of

    return layers.each(refitted, range(len(kept)), _MATRICES * size_of(moments[0]))


def _inputs_again(task: Task, index: int) -> Iterable[Any]:
    """The calibration inputs of a layer of the model that is cut, with what it answers."""
    from lastcli.reduction.calibration import layer_signals

    checkpoint = task.checkpoint
    forward, params, systems = checkpoint.require_forward(), checkpoint.params, task.systems
    return layer_signals(forward, params, systems, systems, index, task.batches())


def sequential(task: Task) -> list[Reduction]:
    """Read-outs refitted layer after layer, on inputs from the layers already reduced."""
    from lastcli.reduction.calibration import sequential_refit

    checkpoint, kept, batches = task.checkpoint, task.kept, task.batches()
    forward, params = checkpoint.require_forward(), checkpoint.params
    with done_bar(task.progress, "Refitting", len(batches) * len(kept)) as advance:
        return sequential_refit(forward, params, task.systems, kept, batches, progress=advance)


def poles(task: Task) -> list[Reduction]:
    """Poles, B, C and D of every layer identified anew, layer after layer, from a sequential refit of the start.

    On recorded layer inputs every layer for itself, from a calibrated refit, on the sample of sequences.
    """
    from lastcli.reduction.pole_refit import recorded_pole_refit, sequential_pole_refit

    checkpoint = task.checkpoint
    if task.recorded is not None:
        start = task.start if task.moved else calibrated(task)
        with done_bar(task.progress, "Refitting poles", len(task.start) * POLE_STEPS) as advance:
            return recorded_pole_refit(
                [diagonal(system) for system in task.systems],
                start,
                task.recorded,
                steps=POLE_STEPS,
                progress=advance,
            )
    with done_bar(task.progress, "Refitting poles", len(task.start) * POLE_STEPS) as advance:
        return sequential_pole_refit(
            checkpoint.require_forward(),
            checkpoint.params,
            [diagonal(system) for system in task.systems],
            task.start,
            task.batches(),
            steps=POLE_STEPS,
            reselect=task.reselect,
            pinned=task.pinned,
            progress=advance,
        )


def match(task: Task) -> list[Reduction]:
    """All layers fitted together to the original's outputs, from a sequential refit; from new poles as they are."""
    return _matched(task, list(task.start) if task.moved else sequential(task))


def poles_match(task: Task) -> list[Reduction]:
    """All layers fitted together to the original's outputs, from poles identified layer after layer."""
    return _matched(task, poles(task))


def _matched(task: Task, start: Sequence[Reduction]) -> list[Reduction]:
    return match_output(task.lessons(), start, task.progress, task.unfinished)


def match_output(
    lessons: Lessons, start: Sequence[Reduction], progress: Progress = None, unfinished: Unfinished | None = None
) -> list[Reduction]:
    """All reduced layers fitted together to the original model's outputs; no labels."""
    from lastcli.reduction import match_output as matching

    with done_bar(progress, "Matching outputs", MATCH_STEPS) as advance:
        systems = [reduction.system for reduction in start]
        matched = matching.match_output(lessons, systems, steps=MATCH_STEPS, progress=advance, unfinished=unfinished)
    return [_moved(reduction, system) for reduction, system in zip(start, matched)]


def _moved(before: Reduction, system: System) -> Reduction:
    """A reduction whose system was fitted further."""
    if system is before.system:
        return before
    return Reduction(before.kept, system, engine_of(system).moved(before, system))


@contextmanager
def done_bar(progress: Progress, label: str, total: int) -> Iterator[Callable[..., None] | None]:
    """A progress bar behind callbacks of the form (done, total), or (done, total, held-back error)."""
    if progress is None:
        yield None
        return
    with progress(label, total) as bar:
        reached = 0

        def advance(done: int, _: int, error: float | None = None) -> None:
            nonlocal reached
            if error is not None:
                bar.note(f"held-back error {error:.3g}")
            bar.advance(max(done - reached, 0))
            reached = max(done, reached)

        yield advance
