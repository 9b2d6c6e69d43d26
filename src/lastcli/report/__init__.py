"""Results for people and for programs: Rich tables, JSON, CSV, Markdown and plots. Computes nothing.

Rich and Matplotlib are imported only where something is drawn, and what makes files only for them.
"""

from __future__ import annotations

import importlib
from typing import IO, TYPE_CHECKING, cast

from lastcli.errors import UsageError
from lastcli.lazily import named
from lastcli.report.blocks import Block
from lastcli.report.terminal import as_text as _text
from lastcli.report.terminal import print_text, terminal_width
from lastcli.report.text import safe_text

if TYPE_CHECKING:
    from lastcli.report.files import as_csv, as_json
    from lastcli.results import Result, SuggestResult, SweepResult

__all__ = ["FORMATS", "as_csv", "as_json", "as_markdown", "as_text", "blocks_of", "print_result", "render", "safe_text"]

FORMATS = ("table", "json", "csv", "markdown")

__getattr__ = named(__name__, {"files": ("as_csv", "as_json")})

# where the blocks of a command's result are made: a command loads the reports of its own kind alone
_BLOCKS = {
    "inspect": "models",
    "score": "models",
    "prune": "models",
    "convert": "models",
    "eval": "measures",
    "verify": "measures",
    "bench": "measures",
    "recipe-check": "recipes",
    "recipe-show": "recipes",
}


def blocks_of(result: Result, width: int | None = None) -> list[Block]:
    """The report of a result; `width` is the terminal's, None where there is none."""
    if result.command == "sweep":
        return _sweep_blocks(cast("SweepResult", result), width)
    module = importlib.import_module(f"lastcli.report.{_BLOCKS[result.command]}")
    made: list[Block] = getattr(module, f"{result.command.removeprefix('recipe-')}_blocks")(result)
    return made


def _sweep_blocks(result: SweepResult, width: int | None) -> list[Block]:
    """The tables, and on a terminal the drawings before the notes."""
    from lastcli.report.sketch import curve_sketch, layer_sketch
    from lastcli.report.sweeps import sweep_blocks

    blocks = sweep_blocks(result, width)
    if width is None:
        return blocks
    drawings = [found for found in (curve_sketch(result, width), layer_sketch(result, width)) if found is not None]
    end = len(blocks) - len(result.notes)
    return [*blocks[:end], *drawings, *blocks[end:]]


def print_result(result: Result, stream: IO[str] | None = None, form: str = "table", *, log: bool = False) -> None:
    """Write the result to `stream` (stdout) in one of `FORMATS`; what its encoding lacks is written as escapes.

    Args:
        log: whether a runner of jobs reads it that obeys lines with commands; names in it are none.

    Raises:
        UsageError: no such format.
    """
    import sys

    stream = sys.stdout if stream is None else stream
    if form == "table" and result.command != "suggest":
        text = print_text(blocks_of(result, terminal_width(stream)), stream)
    else:
        text = render(result, form)
    if log:
        from lastcli.report.github import as_plain_log

        text = as_plain_log(text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def as_text(result: Result, width: int | None = None, ascii_only: bool = False) -> str:
    """The report as plain text; `width` None for as wide as its content."""
    return _text(blocks_of(result, width), width, ascii_only)


def as_markdown(result: Result) -> str:
    """The report as GitHub-flavoured Markdown."""
    from lastcli.report.files import as_markdown

    return as_markdown(blocks_of(result))


def render(result: Result, form: str) -> str:
    """The result as text in one of `FORMATS`.

    Raises:
        UsageError: no such format.
    """
    if form not in FORMATS:
        raise UsageError(f"There is no output format {form!r}; known: {', '.join(FORMATS)}.")
    if result.command == "suggest" and form != "json":
        if form != "table":
            raise UsageError("A description is YAML, or with --json part of a JSON document; it has no rows.")
        from lastcli.report.suggestions import as_yaml

        return as_yaml(cast("SuggestResult", result))
    if form == "table":
        return as_text(result)
    if form == "markdown":
        return as_markdown(result)
    from lastcli.report import files

    return files.as_json(result) if form == "json" else files.as_csv(result)
