"""Every fenced block of every page, and what is done with one of each language.

A page is run from top to bottom in one namespace and one folder, as a reader would: Python is executed, a console's
commands are run, descriptions and recipes are held against the options that they set. Nothing is left out: a language
without a runner fails.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lastcli.families import family_named
from lastcli.mappings import parse_mapping

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
Namespace = dict[str, Any]
Last = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is that of its fence, `heading` the last one before it."""

    page: str
    line: int
    heading: str
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [Block(page, text.count("\n", 0, m.start()) + 1, _heading(text[: m.start()]), m[2], m[3]) for m in found]


def _heading(before: str) -> str:
    prose = re.sub(r"^```.*?^```$", "", before, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return titles[-1] if titles else ""


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a console, without what they print."""
    for line in block.text.splitlines():
        if line.startswith("$ "):
            yield shlex.split(line[2:])


def run_python(block: Block, namespace: Namespace, last: Last) -> None:
    import jax

    # a reader runs it with JAX as it comes, and an error names the line of the page
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile("\n" * block.line + block.text, str(ROOT / block.page), "exec"), namespace)


def run_console(block: Block, namespace: Namespace, last: Last) -> None:
    for program, *arguments in commands(block):
        assert program == "last", f"{block.where}: {program} cannot be run here"
        code, _, err = last(*arguments)
        assert code == 0, f"{block.where}: last {shlex.join(arguments)}: {err}"


def run_description(block: Block, namespace: Namespace, last: Last) -> None:
    """A description names a family and its options."""
    said = dict(parse_mapping(block.text, block.where))
    options = {option.key: option for option in family_named(said.pop("family")).options}
    for key, value in said.items():
        assert key in options, f"{block.where}: {key}"
        assert not options[key].choices or value in options[key].choices, f"{block.where}: {key}={value}"


RUNNERS: dict[str, Callable[[Block, Namespace, Last], None]] = {
    "python": run_python,
    "console": run_console,
    "json": run_description,
    "yaml": run_description,
}


def follow(page: str, namespace: Namespace, last: Last, under: str | None = None) -> Namespace:
    """Run a page from top to bottom in the current folder; `namespace` is what its reader has at hand.

    `under` is the heading of what is run, where the rest of the page is for readers with other projects at hand.
    """
    for block in blocks(page):
        if under in (None, block.heading):
            RUNNERS[block.language](block, namespace, last)
    return namespace
