"""The verbs of the command line as Python functions: paths or open checkpoints in, frozen results out.

Options are the fields of `lastcli.plan.Plan`, as keyword arguments; `model={...}` describes the model where its file
does not. Nothing is printed. Exported by `lastcli` itself::

    import lastcli

    model = lastcli.open("model.safetensors")
    result = lastcli.prune(model, "small.safetensors", ratio=0.33)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lastcli.model.checkpoint import Checkpoint, open_checkpoint
from lastcli.plan import build_plan
from lastcli.verbs.shared.session import Session

if TYPE_CHECKING:
    from lastcli.results import (
        BenchResult,
        ConvertResult,
        EvalResult,
        InspectResult,
        PruneResult,
        ScoreResult,
        SweepResult,
        VerifyResult,
    )

__all__ = ["bench", "convert", "evaluate", "inspect", "open", "prune", "score", "sweep", "verify"]

Model = Checkpoint | str | Path | None


def open(path: str | Path, *, model: Mapping[str, Any] | None = None, name: str | None = None) -> Checkpoint:
    """Open a checkpoint: family, layers and description; no weights are decoded yet.

    Args:
        path: a file or folder of any supported container.
        model: description of the model, as in a sidecar; stronger than what the file says.
        name: which model, where a file holds several.

    Returns:
        A `Checkpoint`; use as a context manager, or keep it for several verbs.

    Raises:
        InputError: the file is missing or damaged.
        UnsupportedModelError: no family fits.
    """
    return open_checkpoint(path, flags=model, model=name)


def _session(model: Model, options: Mapping[str, Any]) -> Session:
    options = dict(options)
    description = options.pop("model", None)
    recipe = options.pop("recipe", None)
    progress = options.pop("progress", None)
    checkpoint = model if isinstance(model, Checkpoint) else None
    if model is not None and checkpoint is None:
        options["checkpoint"] = str(model)
    for key in ("data", "calibration"):
        if isinstance(options.get(key), Path):
            options[key] = str(options[key])
    plan = build_plan(options, None if recipe is None else Path(recipe))
    return Session(plan, flags=description, checkpoint=checkpoint, progress=progress)


def inspect(model: Model = None, **options: Any) -> InspectResult:
    """What is in a checkpoint, and what was assumed about it.

    Raises:
        LastError: see `lastcli.errors`; the same for every verb.
    """
    from lastcli.verbs.inspect import inspect

    with _session(model, options) as session:
        return inspect(session.checkpoint)


def score(model: Model = None, *, method: str = "last", **options: Any) -> ScoreResult:
    """Energy and score of every state of every layer."""
    from lastcli.verbs.score import score

    with _session(model, {**options, "method": method}) as session:
        return score(session)


def prune(
    model: Model = None,
    out: str | Path | None = None,
    *,
    dry_run: bool = False,
    force: bool = False,
    shard_bytes: int | None = None,
    **options: Any,
) -> PruneResult:
    """Remove states and write a smaller checkpoint; `ratio`, `states` or `max_drop` says how many.

    Args:
        out: the output; its suffix names the container. May be None only with `dry_run`.
    """
    from lastcli.verbs.prune import prune

    with _session(model, options) as session:
        return prune(session, None if out is None else Path(out), dry_run=dry_run, force=force, shard_bytes=shard_bytes)


def sweep(model: Model = None, *, certify: bool = False, **options: Any) -> SweepResult:
    """The metric against the ratio; `ratios`, `methods` and `refits` say what is compared."""
    from lastcli.verbs.sweep import sweep

    with _session(model, options) as session:
        return sweep(session, certify=certify)


def evaluate(model: Model = None, **options: Any) -> EvalResult:
    """The metric of a checkpoint on a held-out split (`data`)."""
    from lastcli.verbs.evaluate import evaluate

    with _session(model, options) as session:
        return evaluate(session)


def verify(original: str | Path, pruned: str | Path, **options: Any) -> VerifyResult:
    """Whether `pruned` is `original` with states removed; `result.ok` is the answer."""
    from lastcli.verbs.verify import verify

    with _session(None, options) as session:
        return verify(session, Path(original), Path(pruned))


def convert(
    model: str | Path,
    out: str | Path,
    *,
    to_family: str | None = None,
    force: bool = False,
    shard_bytes: int | None = None,
    **options: Any,
) -> ConvertResult:
    """The same checkpoint in another container."""
    from lastcli.verbs.convert import convert

    with _session(model, options) as session:
        return convert(session, Path(out), to_family=to_family, force=force, shard_bytes=shard_bytes)


def bench(
    original: str | Path, pruned: str | Path, *, length: int | None = None, repeats: int = 30, **options: Any
) -> BenchResult:
    """Latency, throughput and peak memory of two checkpoints, measured in turns."""
    from lastcli.verbs.bench import bench

    with _session(None, options) as session:
        return bench(session, Path(original), Path(pruned), length=length, repeats=repeats)
