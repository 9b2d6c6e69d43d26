"""The verbs of the command line as Python functions: paths or open checkpoints in, frozen results out.

Options are those of the command line, as keyword arguments (`lastcli.plan.options` lists them with their types);
`model={...}` describes the model where its file does not. A method may be a name, a `lastcli.Method`, or a criterion of
your own: a function of a `DiagonalSystem` that gives the energies of its states. Nothing is printed. Exported by
`lastcli` itself::

    import lastcli

    model = lastcli.open("model.safetensors")
    result = lastcli.prune(model, "small.safetensors", ratio=0.33)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from lastcli.errors import UsageError
from lastcli.mappings import suggestion
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import Method, Refit, build_plan, options
from lastcli.verbs.shared.session import Session

if TYPE_CHECKING:
    from lastcli.plan.methods import Criterion
    from lastcli.recording.recorder import Capture
    from lastcli.results import (
        BenchResult,
        ConvertResult,
        EvalResult,
        InspectResult,
        PruneResult,
        ScoreResult,
        SuggestResult,
        SweepResult,
        VerifyResult,
    )

__all__ = ["bench", "capture", "convert", "evaluate", "inspect", "open", "prune", "score", "suggest", "sweep", "verify"]

Model = Checkpoint | str | Path


class _Run(TypedDict, total=False):
    """What every verb takes besides its options.

    `model` describes the model, as a sidecar does, and is the strongest source; `model_config` is a file that does;
    `recipe` is a YAML file with any options; `progress` makes progress bars, called as `progress(label, total)`.
    """

    model: Mapping[str, Any]
    model_config: str | Path
    recipe: str | Path
    progress: Callable[..., Any]


class InspectArguments(_Run, options.InspectOptions, total=False):
    """Keyword arguments of `inspect`."""


class ScoreArguments(_Run, options.ScoreOptions, total=False):
    """Keyword arguments of `score`."""


class PruneArguments(_Run, options.PruneOptions, total=False):
    """Keyword arguments of `prune`."""


class SweepArguments(_Run, options.SweepOptions, total=False):
    """Keyword arguments of `sweep`; `method`, `refit` and `ratio` name a single one."""

    method: str | Method | Criterion
    refit: str | Refit
    ratio: options.Ratio


class EvaluateArguments(_Run, options.EvaluateOptions, total=False):
    """Keyword arguments of `evaluate`."""


class VerifyArguments(_Run, options.VerifyOptions, total=False):
    """Keyword arguments of `verify`."""


class ConvertArguments(_Run, options.ConvertOptions, total=False):
    """Keyword arguments of `convert`."""


class BenchArguments(_Run, options.BenchOptions, total=False):
    """Keyword arguments of `bench`."""


def open(
    path: str | Path,
    *,
    model: Mapping[str, Any] | None = None,
    model_config: str | Path | None = None,
    recipe: str | Path | None = None,
    name: str | None = None,
    like: str | None = None,
) -> Checkpoint:
    """Open a checkpoint: family, layers and description; no weights are decoded yet.

    Args:
        path: a file or folder of any supported container, or "bundled" for the bundled model.
        model: description of the model, as in a sidecar; stronger than what the file says.
        model_config: a YAML or JSON file with such a description.
        recipe: a recipe whose `model:` describes it.
        name: which model, where a file holds several.
        like: `module:function` that gives the module an equinox file was saved from.

    Returns:
        A `Checkpoint`; use as a context manager, or keep it for several verbs.

    Raises:
        InputError: the file is missing or damaged.
        UnsupportedModelError: no family fits.
    """
    given = {"model": model, "model_config": model_config, "recipe": recipe, "name": name, "like": like}
    given = {key: value for key, value in given.items() if value is not None}
    return _session("open", None, given, InspectArguments).open(path)


def _session(verb: str, checkpoint: Model | None, given: Mapping[str, Any], arguments: type) -> Session:
    """The session of a verb, its keyword arguments checked.

    Raises:
        UsageError: a keyword the verb does not take, with a suggestion.
    """
    known = options.fields_of(arguments)
    for key in given:
        if key not in known:
            raise UsageError(f"{verb}() has no option {key!r}.{suggestion(key, known)}")
    rest = dict(given)
    description, model_config, recipe, progress = (
        rest.pop(key, None) for key in ("model", "model_config", "recipe", "progress")
    )
    if description is not None and not isinstance(description, Mapping):
        raise UsageError(
            f"{verb}(): model describes the model, as {{option: value}}, and is not {description!r}; "
            "the checkpoint is the first argument."
        )
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        rest["checkpoint"] = str(checkpoint)
    plan = build_plan(rest, None if recipe is None else Path(recipe))
    return Session(
        plan,
        flags=description,
        model_config=None if model_config is None else Path(model_config),
        checkpoint=checkpoint if isinstance(checkpoint, Checkpoint) else None,
        progress=progress,
    )


def inspect(checkpoint: Model | None = None, /, **given: Unpack[InspectArguments]) -> InspectResult:
    """What is in a checkpoint, and what was assumed about it.

    Raises:
        LastError: see `lastcli.errors`; the same for every verb.
    """
    from lastcli.verbs.inspect import inspect

    with _session("inspect", checkpoint, given, InspectArguments) as session:
        return inspect(session.checkpoint)


def suggest(checkpoint: Model | None = None, /, **given: Unpack[InspectArguments]) -> SuggestResult:
    """A description of the model to begin with: of a known one what counts, of an unknown one a first map."""
    from lastcli.verbs.suggest import suggest

    with _session("suggest", checkpoint, given, InspectArguments) as session:
        return suggest(session)


def score(checkpoint: Model | None = None, /, **given: Unpack[ScoreArguments]) -> ScoreResult:
    """Energy and score of every state of every layer."""
    from lastcli.verbs.score import score

    with _session("score", checkpoint, given, ScoreArguments) as session:
        return score(session)


def prune(
    checkpoint: Model | None = None,
    /,
    out: str | Path | None = None,
    *,
    dry_run: bool = False,
    force: bool = False,
    shard_bytes: int | None = None,
    **given: Unpack[PruneArguments],
) -> PruneResult:
    """Remove states and write a smaller checkpoint; `ratio`, `states` or `max_drop` says how many.

    Args:
        out: the output; its suffix names the container. May be None only with `dry_run`.
        dry_run: do everything but write.
        force: replace what is there.
        shard_bytes: write a safetensors folder of shards of at most so many bytes.
    """
    from lastcli.verbs.prune import prune

    with _session("prune", checkpoint, given, PruneArguments) as session:
        return prune(session, None if out is None else Path(out), dry_run=dry_run, force=force, shard_bytes=shard_bytes)


def sweep(checkpoint: Model | None = None, /, *, certify: bool = False, **given: Unpack[SweepArguments]) -> SweepResult:
    """The metric against the ratio; `ratios`, `methods` and `refits` say what is compared.

    Args:
        certify: also compute the H∞ and H2 errors of every layer in every row.
    """
    from lastcli.verbs.sweep import sweep

    with _session("sweep", checkpoint, given, SweepArguments) as session:
        return sweep(session, certify=certify)


def evaluate(checkpoint: Model | None = None, /, **given: Unpack[EvaluateArguments]) -> EvalResult:
    """The metric of a checkpoint on a held-out split (`data`)."""
    from lastcli.verbs.evaluate import evaluate

    with _session("evaluate", checkpoint, given, EvaluateArguments) as session:
        return evaluate(session)


def verify(original: Model, pruned: Model, **given: Unpack[VerifyArguments]) -> VerifyResult:
    """Whether `pruned` is `original` with states removed; `result.ok` is the answer."""
    from lastcli.verbs.verify import verify

    with _session("verify", None, given, VerifyArguments) as session:
        return verify(session, original, pruned)


def convert(
    checkpoint: Model,
    /,
    out: str | Path,
    *,
    to_family: str | None = None,
    force: bool = False,
    shard_bytes: int | None = None,
    **given: Unpack[ConvertArguments],
) -> ConvertResult:
    """The same checkpoint in another container.

    Args:
        out: the output; its suffix names the container.
        to_family: also rewrite the layers as this family, where that is exact.
        force: replace what is there.
        shard_bytes: write a safetensors folder of shards of at most so many bytes.
    """
    from lastcli.verbs.convert import convert

    with _session("convert", checkpoint, given, ConvertArguments) as session:
        return convert(session, Path(out), to_family=to_family, force=force, shard_bytes=shard_bytes)


def capture(
    checkpoint: Model,
    module: Any = None,
    /,
    out: str | Path | None = None,
    *,
    layout: str | None = None,
    sample: int = 64,
    seed: int = 0,
    **given: Unpack[InspectArguments],
) -> Capture:
    """Record what arrives at every layer while your own code runs the model; for `layer_inputs=` of the other verbs.

    ::

        with lastcli.capture("model.pth", net, "inputs.safetensors"):
            for x in batches:
                net(x)

    Args:
        module: the torch model with the checkpoint's weights, in evaluation mode; its layers are hooked. None to call
            `Capture.record` (or `record_intermediates`) yourself.
        out: the file, a .safetensors, written when the `with` block ends well; or call `Capture.save`.
        layout: order of the axes of the inputs, "blh", "bhl" or "lbh"; told by the shape where it can be.
        sample: sequences of each layer kept beside the moments, for `--refit poles`; 0 for none.
        seed: of that choice.

    Returns:
        A `Capture`; docs/capture.md shows it with torch and with flax.
    """
    from lastcli.recording.recorder import Capture

    with _session("capture", checkpoint, given, InspectArguments) as session:
        return Capture(session.checkpoint, module, out=out, layout=layout, sample=sample, seed=seed)


def bench(
    original: Model, pruned: Model, *, length: int | None = None, repeats: int = 30, **given: Unpack[BenchArguments]
) -> BenchResult:
    """Latency, throughput, memory and single steps of two checkpoints, measured in turns.

    Args:
        length: steps of the random inputs, where no data is given.
        repeats: rounds.
    """
    from lastcli.verbs.bench import bench

    with _session("bench", None, given, BenchArguments) as session:
        return bench(session, original, pruned, length=length, repeats=repeats)
