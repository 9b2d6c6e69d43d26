"""From `Plan` to command-line flags: each flag is a field of the plan, declared once, with one help text.

A command names the plan fields it takes; its Typer signature is made from them, so that flags, recipes and
documentation cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from lastcli.cli.completion import completer
from lastcli.errors import UsageError
from lastcli.plan import Plan

__all__ = ["COMMON", "OUTPUT", "Flag", "checkpoint_argument", "option", "parse_size", "plan_flags", "signature"]

_TYPES = dict.fromkeys(("path", "mapping", "ratio", "ratios", "method", "methods", "refit", "refits"), str)
_PLAIN = {int: "N", float: "X", str: "TEXT"}
_METAVARS = {"ratio": "R", "ratios": "A:B:STEP", "methods": "M,M,…", "refits": "R,R,…"}
_SPECIAL = {
    "data": "FILE",
    "calibration": "FILE",
    "budget": "5m",
    "layer_inputs": "FILE",
    "limit": "A:B",
    "calibration_limit": "A:B",
    "scale": "1/255",
    "mean": "X,X,…",
    "std": "X,X,…",
    "columns": "x=NAME,…",
    "devices": "N|all",
    "coordinator": "HOST:PORT",
    "resume": "FILE",
}


_FIELDS = {item.name: item for item in dataclasses.fields(Plan)}


class Flag(NamedTuple):
    """One parameter of a command: name, annotation for Typer, default."""

    name: str
    annotation: Any
    default: Any = None


def option(name: str, kind: Any, *declarations: str, default: Any = None, **settings: Any) -> Flag:
    """A flag of a command, declared as Typer's `Option` takes it."""
    return Flag(name, Annotated[kind, typer.Option(*declarations, autocompletion=completer(name), **settings)], default)


COMMON = (
    option(
        "settings", list[str] | None, "--set", metavar="KEY=VALUE", help="say one thing about the model; repeatable"
    ),
    option("model_config", Path | None, "--model-config", metavar="FILE", help="YAML or JSON description of the model"),
    option("recipe", Path | None, "--recipe", metavar="FILE", help="YAML file with any of these options"),
    option("quiet", bool, "--quiet", "-q", default=False, help="no progress and no messages on standard error"),
    option("debug", bool, "--debug", default=False, help="show the traceback of an error"),
)

OUTPUT = (
    option("as_json", bool, "--json", default=False, help="one JSON document on standard output, nothing else"),
    option("as_csv", bool, "--csv", default=False, help="CSV on standard output"),
    option("as_markdown", bool, "--markdown", default=False, help="a Markdown table on standard output"),
)


def plan_flags(names: Sequence[str]) -> list[Flag]:
    """Flags for the given fields of `Plan`."""
    # a sweep takes one method or several under either name
    return [_plan_flag(name, either=name in ("methods", "refits") and name[:-1] not in names) for name in names]


@functools.cache
def _plan_flag(name: str, *, either: bool) -> Flag:
    """The flag of a field, made once for all commands that have it."""
    item = _FIELDS[name]
    kind, text, choices = (item.metadata[key] for key in ("kind", "help", "choices"))
    flags = ["--" + item.name.replace("_", "-")]
    if either:
        flags.append(flags[0].removesuffix("s"))
    if choices:
        text = f"{text}: {', '.join(choices)}" if len(choices) < 8 else f"{text}; see `last methods`"
    if item.default not in (None, False, dataclasses.MISSING):
        text += f" [default: {getattr(item.default, 'name', item.default)}]"
    if kind is bool:
        return option(item.name, bool | None, *flags, help=text, show_default=False)
    plain: Any = _TYPES[kind] if isinstance(kind, str) else kind
    metavar = _SPECIAL.get(item.name) or (_METAVARS.get(kind) if isinstance(kind, str) else None)
    if metavar is None and choices:
        metavar = "NAME"
    if metavar is None:
        metavar = _PLAIN.get(plain)
    return option(item.name, plain | None, *flags, help=text, metavar=metavar, show_default=False)


def checkpoint_argument(name: str = "checkpoint", *, required: bool = False, help: str = "") -> Flag:
    """The positional checkpoint."""
    kind = str if required else str | None
    argument = typer.Argument(metavar=name.upper(), help=help or "checkpoint file or folder", show_default=False)
    return Flag(name, Annotated[kind, argument], inspect.Parameter.empty if required else None)


def signature(function: Callable[..., Any], flags: Sequence[Flag]) -> Callable[..., Any]:
    """Give `function(**values)` the signature that Typer reads."""
    parameters = [
        inspect.Parameter(flag.name, inspect.Parameter.KEYWORD_ONLY, default=flag.default, annotation=flag.annotation)
        for flag in flags
    ]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {flag.name: flag.annotation for flag in flags}
    return function


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_size(text: str | None) -> int | None:
    """Bytes of `500MB`, `5GB`, `2GiB` or a plain number.

    Raises:
        UsageError: not such a size, less than one byte, or more than any disk holds.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS or not 1 <= float(match[1]) * _UNITS[match[2]] < 2**63:
        raise UsageError(f"{text[:60]!r} is not a size; write 500MB, 5GB or 2GiB.")
    return int(float(match[1]) * _UNITS[match[2]])
