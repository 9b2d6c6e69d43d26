"""`last recipe check|show|init|schema`: files of options, written, looked at and explained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lastcli.cli.console import Console, guarded
from lastcli.cli.flags import COMMON, OUTPUT, Flag, checkpoint_argument, option, plan_flags, signature
from lastcli.cli.help import Command, Group
from lastcli.cli.outputs import FORCE
from lastcli.cli.sessions import RECIPE, found_recipe, session_with_sources
from lastcli.errors import ExitCode
from lastcli.plan.options import PLACE, InspectOptions, PruneOptions, SweepOptions, fields_of

__all__ = ["recipes"]

recipes = typer.Typer(
    name="recipe", help="Recipes: files with the options of a run; check, show or begin one.", cls=Group,
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip

SCHEMA = "last.schema.json"
_NO_CHOICE = {*PLACE, "resume"}
_OF_A_RUN = dict.fromkeys((*fields_of(SweepOptions), *fields_of(PruneOptions)))
# No number depends on the others.
_SHOWN = ["checkpoint", *(name for name in _OF_A_RUN if name not in _NO_CHOICE), "out"]
_QUIET = tuple(flag for flag in COMMON if flag.name in ("quiet", "debug"))
_WITHOUT_RECIPE = tuple(flag for flag in COMMON if flag.name != "recipe")


def _argument(name: str, kind: Any, help: str) -> Flag:
    return Flag(name, Annotated[kind, typer.Argument(metavar=name.upper(), help=help, show_default=False)], None)


def _command(name: str, flags: Sequence[Flag]) -> Any:
    """Register `body(console, **values)`."""

    def register(body: Callable[..., int | None]) -> Callable[..., int | None]:
        def run(**values: Any) -> None:
            with guarded(values.pop("debug")):
                code = body(Console.of(values), **values)
                if code:
                    raise SystemExit(int(code))

        run.__doc__ = body.__doc__
        recipes.command(name, cls=Command, help=body.__doc__)(signature(run, flags))
        return body

    return register


@_command(
    "check",
    (
        _argument("recipe", list[Path] | None, "recipe files; last.yaml where none is named"),
        option("no_files", bool, "--no-files", default=False, help="look at the text alone, not at what it names"),
        *OUTPUT,
        *_QUIET,
    ),
)
def check(console: Console, recipe: list[Path] | None, no_files: bool) -> int:
    """Every mistake in recipes, and whether the model and the data that they name fit; nothing is run."""
    from lastcli.verbs.recipes.check import check

    result = check(recipe or [RECIPE], files=not no_files)
    console.show(result)
    console.annotate_lines(result)
    codes = [problem.code for one in result.recipes for problem in one.problems]
    if not codes:
        return ExitCode.DONE
    return ExitCode.INPUT if ExitCode.INPUT in codes else codes[0]


@_command(
    "show",
    (
        _argument("recipe", Path | None, "a recipe; last.yaml where none is named and there is one"),
        *plan_flags(_SHOWN),
        *OUTPUT,
        *_WITHOUT_RECIPE,
    ),
)
def show(console: Console, recipe: Path | None, **values: Any) -> None:
    """The plan that a recipe and flags make, every value with its source: flag, recipe, file, family, default."""
    from lastcli.verbs.recipes.show import show

    if recipe is None and values["checkpoint"] is None:
        recipe = found_recipe(console)
    session, resolved = session_with_sources(values, console, recipe, alone=True)
    with session:
        console.show(show(session, resolved, recipe))


@_command(
    "init",
    (
        checkpoint_argument(help="checkpoint file or folder, or `bundled`"),
        option(
            "out",
            Path,
            "--out",
            "-o",
            metavar="FILE",
            default=RECIPE,
            show_default=False,
            help=f"where the recipe goes [default: {RECIPE}]",
        ),
        option(
            "schema", bool, "--schema", default=False, help=f"also write {SCHEMA} beside it, and name it for editors"
        ),
        FORCE,
        *plan_flags(fields_of(InspectOptions)),
        *OUTPUT[:1],
        *_WITHOUT_RECIPE,
    ),
)
def init(console: Console, out: Path, schema: bool, force: bool, **values: Any) -> None:
    """A commented recipe for a checkpoint, from what inspect finds in it; what it leaves open is a comment."""
    from lastcli import containers
    from lastcli.report.recipes import draft_yaml
    from lastcli.verbs.recipes.init import init

    containers.check_place(out, force=force)
    beside = out.parent / SCHEMA
    session, _ = session_with_sources(values, console, None)
    with session:
        draft = init(session, out, schema_file=SCHEMA if schema or beside.is_file() else None)
    containers.write_file(out, draft_yaml(draft, out.name).encode(), force=force)
    if schema:
        containers.write_file(beside, _schema_text().encode(), force=True)
    if console.form == "json":
        console.show(draft)
    console.note(
        f"Wrote {out}. Fill in the data, then: last recipe check {out}"
        if draft.data is None
        else f"Wrote {out}. Next: last recipe check {out}, last sweep --recipe {out}"
    )


@_command("schema", _QUIET)
def schema(console: Console) -> None:
    """The JSON schema of recipes, for editors: completes keys and values, explains and underlines them."""
    print(_schema_text(), end="")


def _schema_text() -> str:
    from lastcli.verbs.recipes.schema import schema

    return json.dumps(schema(), indent=1) + "\n"
