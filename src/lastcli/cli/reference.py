"""The reference of the command line as Markdown, from the commands themselves and the fields of `Plan`.

`python -m lastcli.cli.reference > docs/cli.md` writes the page. It depends on the code alone: not on the width of a
terminal, nor on the version of what parses the flags.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import UnionType
from typing import Any, get_args

from lastcli.cli import compile_cache
from lastcli.cli.commands import app
from lastcli.cli.flags import COMMON, OUTPUT, Flag, plan_flags
from lastcli.plan import METHODS, REFITS, Method, Plan, Refit, plan

__all__ = ["command_flags", "declarations", "reference"]

_HEAD = """\
# Commands

Printed by `python -m lastcli.cli.reference > docs/cli.md`: commands and options are changed in the code, and this page
follows. `last COMMAND --help` says the same about one command. Where an option shows no default, it is off, or `last`
decides and says what it took.
"""
_SHARED = (*plan_flags(["name"]), *OUTPUT, *COMMON)
_SHARED_NAMES = {flag.name for flag in _SHARED}
_METAVARS = {int: "N", float: "X"}
_KINDS = {str: "text", bool: "true or false", int: "whole number", float: "number"}
_FIELDS = {item.name: item for item in dataclasses.fields(Plan)}
_NAMED = {"method": "Methods", "methods": "Methods", "refit": "Refits", "refits": "Refits"}


def reference() -> str:
    """The whole page, ending in one newline."""
    parts = [_HEAD, *_overview(), *_root(), "## Options of every command\n", *_options(_SHARED)]
    for name, call in _commands():
        parts += _command(name, call)
    return "\n".join([*parts, *_names(), *_recipe(), *_exit_codes(), *_cache()]).rstrip("\n") + "\n"


def command_flags() -> dict[str, list[Flag]]:
    """The arguments and options of every command, in the order of its help."""
    return {name: _flags(call) for name, call in _commands()}


def declarations(flag: Flag) -> tuple[str, ...]:
    """How an option is spelled, such as `--out` and `-o`; empty for an argument."""
    # inside `Annotated` the first spelling stands where Typer otherwise keeps the default
    info = _info(flag)
    return tuple(name for name in (info.default, *(info.param_decls or ())) if str(name).startswith("-"))


def _commands() -> Iterator[tuple[str, Callable[..., Any]]]:
    groups = [group.typer_instance for group in app.registered_groups if group.typer_instance is not None]
    for one in (app, *groups):
        before = "" if one is app else f"{one.info.name} "
        for command in one.registered_commands:
            if command.callback is not None:
                yield f"{before}{command.name}", command.callback


def _flags(call: Callable[..., Any]) -> list[Flag]:
    return [Flag(item.name, item.annotation, item.default) for item in inspect.signature(call).parameters.values()]


def _info(flag: Flag) -> Any:
    """What Typer was told: spelling, help, metavar."""
    return flag.annotation.__metadata__[0]


def _overview() -> Iterator[str]:
    rows = [(f"[`last {name}`](#last-{name.replace(' ', '-')})", inspect.getdoc(call)) for name, call in _commands()]
    yield from _table(("command", "does"), rows)


def _root() -> Iterator[str]:
    yield "## last\n"
    call = app.registered_callback.callback if app.registered_callback else None
    infos = [item.default for item in inspect.signature(call).parameters.values()] if call else []
    helps = (app.info.context_settings or {})["help_option_names"]
    rows = [(_spelled(info.param_decls), info.help) for info in infos]
    rows.append((_spelled(["--install-completion", "--show-completion"]), "completion for the current shell"))
    yield from _table(("option", "meaning"), [*rows, (_spelled(helps), "what `last`, or one command, can do")])


def _command(name: str, call: Callable[..., Any]) -> Iterator[str]:
    flags = _flags(call)
    arguments = [flag for flag in flags if not declarations(flag)]
    own = [flag for flag in flags if declarations(flag) and flag.name not in _SHARED_NAMES]
    usage = " ".join(["last", name, *map(_argument, arguments), *(["[OPTIONS]"] if flags else [])])
    yield f"## last {name}\n\n{inspect.getdoc(call)}\n\n```text\n{usage}\n```\n"
    if arguments:
        yield from _table(("argument", "meaning"), [(f"`{_argument(flag)}`", _info(flag).help) for flag in arguments])
    if own:
        yield from _options(own)


def _argument(flag: Flag) -> str:
    name = _info(flag).metavar
    return name if flag.default is inspect.Parameter.empty else f"[{name}]"


def _options(flags: Iterable[Flag]) -> Iterator[str]:
    rows = [(_spelled(declarations(flag), _metavar(flag)), _default(flag), _help(flag)) for flag in flags]
    yield from _table(("option", "default", "meaning"), rows)


def _spelled(names: Sequence[str], metavar: str = "") -> str:
    return ", ".join(f"`{f'{name} {metavar}'.strip()}`" for name in names)


def _metavar(flag: Flag) -> str:
    kind = get_args(flag.annotation)[0]
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if bool in kinds:
        return ""
    return _info(flag).metavar or next((_METAVARS[kind] for kind in kinds if kind in _METAVARS), "TEXT")


def _default(flag: Flag) -> str:
    return _value(_FIELDS[flag.name].default if flag.name in _FIELDS else flag.default)


def _value(value: Any) -> str:
    """A default worth showing: a number or a name, not what is off or left open."""
    value = value.name if isinstance(value, Method | Refit) else value
    return f"`{value}`" if isinstance(value, int | float | str) and not isinstance(value, bool) else ""


def _help(flag: Flag) -> str:
    """The help text without the default, which has a column of its own, and with a link to the names it can take."""
    text = re.sub(r" \[default: [^]]*\]$", "", _info(flag).help).removesuffix("; see `last methods`")
    return _linked(text, _FIELDS[flag.name]) if flag.name in _FIELDS else text


def _linked(text: str, field: dataclasses.Field[Any]) -> str:
    """The text, and where the names it takes have a table on this page, a link to it instead of the names."""
    title = _NAMED.get(field.name)
    return text if title is None else f"{text.partition(': ')[0]}: see [{title}](#{title.lower()})"


def _names() -> Iterator[str]:
    for name, known in (("method", METHODS), ("refit", REFITS)):
        yield f"## {name.title()}s\n\nThe values of `--{name}` and, one or several, `--{name}s`.\n"
        rows = [(f"`{entry.name}`", entry.help, entry.source) for entry in known.values()]
        yield from _table((name, "meaning", "source"), rows)


def _recipe() -> Iterator[str]:
    yield f"## Recipe keys\n\n{_paragraphs(plan)[1]}\n"
    rows = [(f"`{item.name}`", _kind(item), _value(item.default), _key(item)) for item in _FIELDS.values()]
    yield from _table(("key", "value", "default", "meaning"), rows)


def _kind(item: dataclasses.Field[Any]) -> str:
    kind = item.metadata["kind"]
    return kind if isinstance(kind, str) else _KINDS[kind]


def _key(item: dataclasses.Field[Any]) -> str:
    choices, text = item.metadata["choices"], item.metadata["help"]
    return _linked(text, item) if item.name in _NAMED or not choices else f"{text}: {', '.join(choices)}"


def _exit_codes() -> Iterator[str]:
    found = re.findall(r"(\d+) ([^,.]+)", str(app.info.epilog))
    yield "## Exit codes\n"
    yield from _table(("code", "means"), found)


def _cache() -> Iterator[str]:
    about = _paragraphs(compile_cache)
    yield f"## Compile cache\n\n{about[0]}\n\n{about[1]}\n"


def _paragraphs(module: Any) -> list[str]:
    return (inspect.getdoc(module) or "").split("\n\n")


def _table(head: Sequence[str], rows: Iterable[Sequence[str | None]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}"
    for row in rows:
        cells = ((cell or "").replace("\n", " ").replace("|", "\\|") for cell in row)
        yield re.sub(r" +", " ", f"| {' | '.join(cells)} |")
    yield ""


if __name__ == "__main__":
    sys.stdout.buffer.write(reference().encode())
