"""`bench`: what pruning bought in time and memory, two checkpoints measured in turns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lastcli import containers
from lastcli.model.checkpoint import Checkpoint
from lastcli.results import BenchResult, BenchRun
from lastcli.verbs.shared.session import Session

if TYPE_CHECKING:
    from lastcli.evaluation.bench import Timing
    from lastcli.evaluation.data import Split

__all__ = ["bench"]

Named = str | Path | Checkpoint

_EXAMPLES = 64
_LENGTH = 256


def bench(
    session: Session, original: Named, pruned: Named, *, length: int | None = None, repeats: int = 30
) -> BenchResult:
    """Latency, throughput and memory of both models on one device, each round in a new random order.

    Args:
        length: steps of random inputs where the plan names no data.
        repeats: rounds.

    Raises:
        UnsupportedModelError: the architecture around the layers is not known.
        UsageError: no repeats, or the batch does not fit into memory.
    """
    from lastcli.evaluation.bench import Contender, device_name, paired_speedup, time_models

    models = [session.open(original), session.open(pruned, own_description=True)]
    split = _inputs(session, models[0], length)
    contenders = [Contender(model.require_forward(), model.params, model.systems) for model in models]
    size = session.plan.batch_size or min(split.n, _EXAMPLES)
    with session.bar("Measuring", repeats * len(models)) as bar:
        first, second = time_models(contenders, split, batch_size=size, repeats=repeats, progress=bar)
    speedup, low, high = paired_speedup(first, second)
    return BenchResult(
        original=_run(models[0], first),
        pruned=_run(models[1], second),
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        batch_size=first.batch_size,
        length=int(split.x.shape[2 if split.x.ndim == 4 else 1]),
        repeats=repeats,
        device=device_name(),
    )


def _inputs(session: Session, checkpoint: Checkpoint, length: int | None) -> Split:
    from lastcli.evaluation.fitting import random_split

    if session.inputs is not None:
        return session.inputs
    n = session.plan.batch_size or _EXAMPLES
    return random_split(checkpoint.require_forward(), n=n, length=length or _LENGTH)


def _run(checkpoint: Checkpoint, timing: Timing) -> BenchRun:
    low, high = timing.quantiles
    return BenchRun(
        checkpoint=checkpoint.label,
        states=sum(system.stored_states for system in checkpoint.systems),
        parameters=checkpoint.parameters,
        bytes=containers.stored_bytes(checkpoint.path),
        latency=timing.latency,
        latency_low=low,
        latency_high=high,
        throughput=timing.throughput,
        peak_memory=timing.peak_memory,
        memory_kind=None if timing.peak_memory is None else "compiled program",
        compile_seconds=timing.compile_seconds,
    )
