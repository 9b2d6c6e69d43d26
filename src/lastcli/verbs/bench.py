"""`bench`: what pruning bought in time, memory and work, two checkpoints measured in turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lastcli import containers
from lastcli.errors import InputError
from lastcli.model.checkpoint import Checkpoint
from lastcli.results import BenchResult, BenchRun, StepSpeedup, StepTime
from lastcli.verbs.shared.baseline import outside_tensors
from lastcli.verbs.shared.session import Session
from lastcli.verbs.shared.shares import Work, step_work
from lastcli.verbs.shared.sizes import carried_bytes, size_note

if TYPE_CHECKING:
    from lastcli.evaluation.bench import Timing
    from lastcli.evaluation.data import Split

__all__ = ["bench"]

Named = str | Path | Checkpoint

_EXAMPLES = 32
_LENGTH = 256


def bench(
    session: Session, original: Named, pruned: Named, *, length: int | None = None, repeats: int = 30
) -> BenchResult:
    """Latency, throughput, memory and steps of both models on one device, each round in a new random order.

    Args:
        length: steps of random inputs where the plan names no data.
        repeats: rounds.

    Raises:
        UnsupportedModelError: the architecture around the layers is not known.
        UsageError: no repeats, or the batch does not fit into memory.
        InputError: outputs of ORIGINAL are not finite.
    """
    from lastcli.evaluation.bench import Contender, device_name, paired_speedup, time_models

    models = session.open_pair(original, pruned)
    split = _inputs(session, models[0], length)
    contenders = [Contender(model.require_forward(), model.params, model.systems) for model in models]
    size = session.plan.batch_size or min(split.n, _EXAMPLES)
    with session.bar("Measuring", repeats * len(models)) as bar:
        first, second = time_models(contenders, split, batch_size=size, repeats=repeats, progress=bar)
    notes = [*_outputs(session, models, split, (first, second)), *_not_stepped(session, models)]
    speedup, low, high = paired_speedup(first.seconds, second.seconds)
    steps = int(split.x.shape[2 if split.x.ndim == 4 else 1])
    work = [step_work(model, steps) for model in models]
    return BenchResult(
        original=_run(models[0], first, _overhead(models[1]), work[0]),
        pruned=_run(models[1], second, 0, work[1]),
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        batch_size=first.batch_size,
        length=steps,
        repeats=repeats,
        device=device_name(),
        step_speedups=_step_speedups(first, second),
        notes=(*notes, *(note for note in map(size_note, models[:1]) if note)),
    )


def _not_stepped(session: Session, models: Sequence[Checkpoint]) -> list[str]:
    """Why there are no steps, if there are none."""
    from lastcli.evaluation.steps import not_stepped

    for model in models:
        why = not_stepped(model.require_forward(), model.systems)
        if why is not None:
            note = f"{model.label} is not run step by step: {why}."
            session.note(note)
            return [note]
    return []


def _step_speedups(first: Timing, second: Timing) -> tuple[StepSpeedup, ...] | None:
    from lastcli.evaluation.bench import paired_speedup

    if first.steps is None or second.steps is None:
        return None
    found = []
    for size, seconds in first.steps.items():
        speedup, low, high = paired_speedup(seconds, second.steps[size])
        found.append(StepSpeedup(batch_size=size, speedup=speedup, speedup_low=low, speedup_high=high))
    return tuple(found)


def _step_times(timing: Timing) -> tuple[StepTime, ...] | None:
    if timing.steps is None:
        return None
    found = []
    for size, seconds in timing.steps.items():
        low, middle, high = (float(value) for value in np.quantile(seconds, [0.05, 0.5, 0.95]))
        found.append(StepTime(batch_size=size, latency=middle, latency_low=low, latency_high=high))
    return tuple(found)


def _inputs(session: Session, checkpoint: Checkpoint, length: int | None) -> Split:
    from lastcli.evaluation.fitting import random_split

    if session.examples.inputs is not None:
        return session.examples.inputs
    n = session.plan.batch_size or _EXAMPLES
    return random_split(checkpoint.require_forward(), n=n, length=length or _LENGTH)


def _outputs(session: Session, models: Sequence[Checkpoint], split: Split, timings: Sequence[Timing]) -> list[str]:
    """What there is to say about PRUNED's outputs; ORIGINAL's must be finite.

    Raises:
        InputError: they are not.
    """
    from lastcli.evaluation.soundness import what_is_wrong

    sentences = [
        what_is_wrong(model.label, timing.non_finite, timing.batch_size, split.name, outside_tensors(session, model))
        if timing.non_finite
        else None
        for model, timing in zip(models, timings)
    ]
    if sentences[0] is not None:
        raise InputError(sentences[0])
    found = [sentence for sentence in sentences if sentence is not None]
    for sentence in found:
        session.note(sentence)
    return found


def _overhead(checkpoint: Checkpoint) -> int:
    """Bytes of a file that are not its tensors'."""
    return containers.stored_bytes(checkpoint.path) - checkpoint.reader.nbytes


def _run(checkpoint: Checkpoint, timing: Timing, overhead: int, work: Work | None) -> BenchRun:
    low, high = timing.quantiles
    steps = _step_times(timing)
    return BenchRun(
        checkpoint=checkpoint.label,
        states=sum(system.stored_states for system in checkpoint.systems),
        parameters=checkpoint.parameters,
        bytes=carried_bytes(checkpoint, overhead),
        latency=timing.latency,
        latency_low=low,
        latency_high=high,
        throughput=timing.throughput,
        peak_memory=timing.peak_memory,
        memory_kind=timing.memory_kind,
        compile_seconds=timing.compile_seconds,
        state_bytes=None if work is None else work.state_bytes,
        multiply_adds=None if work is None else work.multiply_adds,
        state_multiply_adds=None if work is None else work.of_states,
        step_latency=next((step.latency for step in steps or () if step.batch_size == timing.batch_size), None),
        steps=steps,
    )
