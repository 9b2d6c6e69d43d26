"""The command `last`: options → plan → pipeline → report, and nothing else.

No JAX, flax or orbax is imported here; a command imports what it runs.
"""

from __future__ import annotations

import atexit
import copy
import functools
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from lastcli._version import __version__
from lastcli.cli.advice import advice
from lastcli.cli.console import COMMAND, Console, guarded, join_others
from lastcli.cli.flags import COMMON, OUTPUT, Flag, checkpoint_argument, option, parse_size, plan_flags, signature
from lastcli.cli.help import Command, FirstScreen
from lastcli.cli.other_last import refuse_logins
from lastcli.cli.outputs import FORCE, JUNIT, PLOT, REPORT, SUMMARY, Outputs, append_summary, card_place, summary_files
from lastcli.cli.recipes import recipes
from lastcli.cli.sessions import session_of
from lastcli.errors import ExitCode
from lastcli.plan.options import (
    BenchOptions,
    ConvertOptions,
    EvaluateOptions,
    InspectOptions,
    PruneOptions,
    ScoreOptions,
    SweepOptions,
    VerifyOptions,
    fields_of,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="last",
    help="Make trained state space models smaller, without retraining.",
    no_args_is_help=True,
    cls=FirstScreen,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a gate or verification failed, 2 usage, 3 bad input file, 4 model not supported, "
    "5 could not write, 70 a bug, 130 interrupted.",
)

_SHARDS = option(
    "shard_size", str | None, "--shard-size", metavar="5GB", help="write a safetensors folder of such shards"
)
_CARD = option("card", bool, "--card", default=False, help="also write a model card, README.md beside the output")
_SUGGEST = option(
    "suggest",
    bool,
    "--suggest",
    default=False,
    help="print a description of the model to begin with, a map where its names are not known",
)

Body = Callable[..., int | None]


def _command(name: str, options: type, flags: Sequence[Flag] = (), arguments: Sequence[Flag] = ()) -> Any:
    """Register `body(session, console, **own)`: the flags of `options` and the common ones become its session."""
    first = list(arguments) or [checkpoint_argument()]
    parameters = [*first, *plan_flags(fields_of(options)), *flags, *OUTPUT, *COMMON]
    own = {flag.name for flag in (*flags, *arguments)} - {"checkpoint"}

    def register(body: Body) -> Body:
        def run(**values: Any) -> None:
            with guarded(values.pop("debug")):
                mine = {key: values.pop(key) for key in own}
                console = Console.of(values)
                with session_of(values, console) as session:
                    join_others()
                    code = body(session, console, **mine)
                if code:
                    raise SystemExit(int(code))

        run.__doc__ = body.__doc__
        app.command(name, cls=Command, help=body.__doc__)(signature(run, parameters))
        return body

    return register


def _prepare_jax() -> None:
    from lastcli.cli.compile_cache import enable_compile_cache

    enable_compile_cache()


@_command("inspect", InspectOptions, (_SUGGEST, REPORT, PLOT, FORCE))
def inspect(
    session: Any, console: Console, *, suggest: bool, report: Path | None, plot: Path | None, force: bool
) -> None:
    """What is in a checkpoint: family, layers, states, max |λ|, sizes; what was read and what was assumed."""
    if suggest:
        from lastcli.verbs.suggest import suggest as suggested

        return console.show(suggested(session))
    from lastcli.verbs.inspect import inspect

    outputs = Outputs(report=report, plot=plot, force=force)
    outputs.check()
    result = inspect(session.checkpoint, anatomy=outputs.draws)
    console.show(result)
    return outputs.write(result, session, COMMAND.get())


@_command("score", ScoreOptions, (REPORT, PLOT, FORCE))
def score(session: Any, console: Console, report: Path | None, plot: Path | None, force: bool) -> None:
    """Energy and score of every state, layer by layer."""
    outputs = Outputs(report=report, plot=plot, force=force)
    outputs.check()
    _prepare_jax()
    from lastcli.verbs.score import score

    result = score(session, anatomy=outputs.draws)
    console.show(result)
    outputs.write(result, session, COMMAND.get())


@_command(
    "prune",
    PruneOptions,
    (
        option("out", Path | None, "--out", "-o", metavar="PATH", help="the smaller checkpoint; suffix = container"),
        option("dry_run", bool, "--dry-run", help="do everything but write", default=False),
        _SHARDS,
        _CARD,
        REPORT,
        SUMMARY,
        FORCE,
    ),
)
def prune(
    session: Any,
    console: Console,
    out: Path | None,
    dry_run: bool,
    shard_size: str | None,
    card: bool,
    report: Path | None,
    summary: Path | None,
    force: bool,
) -> None:
    """Remove the least important states over the whole model and write a checkpoint that really is smaller."""
    if out is None and session.plan.out is not None:
        out = Path(session.plan.out)
    place = card_place(out, dry_run=dry_run, force=force) if card else None
    outputs, summaries = Outputs(report=report, card=place, force=force), summary_files(summary)
    outputs.check(out)
    _prepare_jax()
    from lastcli.verbs.prune import prune

    result = prune(
        session,
        out,
        dry_run=dry_run,
        force=force,
        shard_bytes=parse_size(shard_size),
        anatomy=outputs.draws or card,
    )
    console.show(result)
    outputs.write(result, session, COMMAND.get(), measured=result.measured is not None or result.search is not None)
    append_summary(summaries, result)
    console.advise(advice(session.plan, result, calibrated=session.examples.has_calibration))


@_command(
    "sweep",
    SweepOptions,
    (
        option("certify", bool, "--certify", help="H∞ and H2 errors of every layer in every row", default=False),
        REPORT,
        PLOT,
        JUNIT,
        SUMMARY,
        FORCE,
    ),
)
def sweep(session: Any, console: Console, certify: bool, summary: Path | None, **files: Any) -> int:
    """Accuracy against pruning ratio on a held-out split, methods and refits side by side."""
    outputs, summaries = Outputs(**files), summary_files(summary)
    outputs.check()
    _prepare_jax()
    from lastcli.verbs.sweep import sweep

    result = sweep(session, certify=certify, anatomy=outputs.draws)
    console.show(result)
    outputs.write(result, session, COMMAND.get(), measured=True)
    append_summary(summaries, result)
    console.annotate(result)
    console.advise(advice(session.plan, result, calibrated=session.examples.has_calibration))
    missed = result.max_drop is not None and result.chosen is None
    return ExitCode.GATE if result.passed is False or missed else ExitCode.DONE


@_command("eval", EvaluateOptions, (JUNIT, SUMMARY, FORCE))
def eval_(session: Any, console: Console, junit: Path | None, summary: Path | None, force: bool) -> int:
    """The metric of a checkpoint on a held-out split, with its 95% interval."""
    outputs, summaries = Outputs(junit=junit, force=force), summary_files(summary)
    outputs.check()
    _prepare_jax()
    from lastcli.verbs.evaluate import evaluate

    result = evaluate(session)
    console.show(result)
    outputs.write(result, session, COMMAND.get(), measured=True)
    append_summary(summaries, result)
    console.annotate(result)
    return ExitCode.GATE if result.passed is False else ExitCode.DONE


@_command(
    "verify",
    VerifyOptions,
    (JUNIT, SUMMARY, FORCE),
    arguments=(
        checkpoint_argument("original", required=True, help="the checkpoint before pruning"),
        checkpoint_argument("pruned", required=True, help="what `last prune` wrote"),
    ),
)
def verify(
    session: Any,
    console: Console,
    original: str,
    pruned: str,
    junit: Path | None,
    summary: Path | None,
    force: bool,
) -> int:
    """Prove that PRUNED is ORIGINAL with those states removed, and say what could not be proved; certify the file."""
    outputs, summaries = Outputs(junit=junit, force=force), summary_files(summary)
    outputs.check()
    _prepare_jax()
    from lastcli.verbs.verify import verify

    result = verify(session, original, pruned)
    console.show(result)
    outputs.write(result, session, COMMAND.get())
    append_summary(summaries, result)
    console.annotate(result)
    return ExitCode.DONE if result.ok else ExitCode.GATE


@_command(
    "convert",
    ConvertOptions,
    flags=(
        option("to_family", str | None, "--to-family", metavar="NAME", help="also rewrite the layers, where exact"),
        _SHARDS,
        FORCE,
    ),
    arguments=(
        checkpoint_argument("checkpoint", required=True),
        checkpoint_argument("out", required=True, help="the output; its suffix names the container"),
    ),
)
def convert(
    session: Any, console: Console, out: str, to_family: str | None, shard_size: str | None, force: bool
) -> None:
    """The same checkpoint in another container, nothing lost."""
    from lastcli.verbs.convert import convert

    shards = parse_size(shard_size)
    console.show(convert(session, Path(out), to_family=to_family, force=force, shard_bytes=shards))


@_command(
    "bench",
    BenchOptions,
    (
        option(
            "length", int | None, "--length", metavar="L", help="steps of the random inputs, where no data is given"
        ),
        option("repeats", int, "--repeats", metavar="N", help="timed pairs of runs", default=30),
    ),
    arguments=(
        checkpoint_argument("original", required=True, help="the checkpoint before pruning"),
        checkpoint_argument("pruned", required=True, help="the smaller checkpoint"),
    ),
)
def bench(session: Any, console: Console, original: str, pruned: str, length: int | None, repeats: int) -> None:
    """Latency, throughput, memory and single steps of two checkpoints, measured in turns."""
    from lastcli.verbs.bench import bench

    console.show(bench(session, original, pruned, length=length, repeats=repeats))


@app.command("methods", cls=Command)
def methods() -> None:
    """The methods and refits, one line each."""
    from lastcli.plan import BEST, METHODS, REFITS
    from lastcli.report.methods import show_methods

    methods = {entry.name: entry.help for entry in (*METHODS.values(), BEST)}
    show_methods(methods, {entry.name: entry.help for entry in REFITS.values()})


def env(as_json: bool) -> None:
    """Versions, devices and settings, for a bug report."""
    from lastcli.cli.environment import show_environment

    show_environment(as_json)


app.add_typer(recipes)
app.command("env", cls=Command)(signature(env, OUTPUT[:1]))


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="print the version")) -> None:
    if version:
        print(f"last {__version__}")
        raise typer.Exit


@functools.cache
def _command_line(name: str | None) -> Any:
    """All commands with their options, or the one of this name alone, which is what a run waits for.

    Made once: a program that calls `main` again does not wait for it again.
    """
    if name is None:
        return typer.main.get_command(app)
    one = copy.copy(app)
    one.registered_commands = [command for command in app.registered_commands if command.name == name]
    one.registered_groups = []
    return typer.main.get_command(one)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in `SystemExit` with one of `ExitCode`."""
    import sys

    # an interpreter that ends looks for cycles once more, among all that was imported
    atexit.register(gc.disable)
    typed = list(sys.argv[1:] if arguments is None else arguments)
    COMMAND.set(tuple(typed))
    refuse_logins(typed)
    known = {command.name for command in app.registered_commands}
    first = typed[0] if typed and typed[0] in known else None
    _command_line(first)(args=typed, prog_name="last")
