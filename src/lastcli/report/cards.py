"""The model card of a pruned checkpoint: a README.md that says what it was, what is gone and how to load it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from lastcli._version import __version__
from lastcli.report.files import as_markdown, markdown_text
from lastcli.report.html.made import command_text, recipe_text
from lastcli.report.models import prune_blocks
from lastcli.report.text import count, escaped, name_text, ratio_text
from lastcli.results import Origin, PruneResult

__all__ = ["MARK", "as_card"]

MARK = "<!-- written by last prune --card -->"

_HEAD = f"""\
---
tags: [state-space-model, pruned]
---

{MARK}
"""
_EXAMPLE = re.compile(r"(?:small|compact|ragged)[\w-]*(\.\w+)")


def as_card(result: PruneResult, origin: Origin, *, title: str, loading: str | None, about: tuple[str, ...]) -> str:
    """The card as Markdown.

    Args:
        title: of the model's family.
        loading: how the family's own code loads such a file, as Markdown; None where its page says nothing.
        about: sentences on the method and the refit.
    """
    name = Path(result.out or result.checkpoint).name
    removed = result.states_before - result.states_after
    intro = (
        f"{title} checkpoint with {count(removed)} of its {count(result.states_before)} states removed "
        f"({ratio_text(removed / max(result.states_before, 1))}), made from "
        f"{name_text(Path(result.checkpoint).name)} by last {__version__}. Nothing was trained again."
    )
    parts = [
        f"{_HEAD}\n# {markdown_text(name_text(name))}",
        markdown_text(intro),
        "## What was removed",
        "\n".join(f"- {markdown_text(sentence)}" for sentence in about),
        as_markdown(prune_blocks(result)).rstrip(),
        "## Loading it",
        *_loading(name, loading),
        "## How it was made",
        *_provenance(origin),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _loading(name: str, loading: str | None) -> list[str]:
    own = f"import lastcli\n\nmodel = lastcli.open({escaped(name)!r})\nprint([layer.states for layer in model.layers])"
    ours = [
        "With `last`, the description, the kept states and the hashes in the file are read:",
        _fenced(own, "python"),
    ]
    if loading is None:
        return ours
    suffix = Path(name).suffix
    examples = set(_EXAMPLE.findall(loading))
    said = []
    if suffix in examples:
        loading = _EXAMPLE.sub(lambda found: name if found[1] == suffix else found[0], loading)
    elif examples:
        wanted = sorted(examples)[0]
        other, typed = f"small{wanted}", shlex.quote(escaped(name))
        said.append(f"The code below reads `{wanted}`; `last convert {typed} {other}` writes that.")
    return ["In the code that the model was trained with:", *said, loading, *ours]


def _provenance(origin: Origin) -> list[str]:
    parts = []
    if origin.command:
        parts.append(_fenced(command_text(origin), "sh"))
    parts += ["The same as a recipe (`last.yaml`):", _fenced(recipe_text(origin), "yaml")]
    rows = [f"| {file.role} | {markdown_text(name_text(file.path))} | `{file.sha256}` |" for file in origin.files]
    if rows:
        parts.append("\n".join(["| | file | sha256 |", "|---|---|---|", *rows]))
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    return [*parts, markdown_text(f"{versions}. {origin.moment}")]


def _fenced(text: str, language: str) -> str:
    """A block of code that nothing in it can end."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = "\n".join(escaped(line) for line in text.split("\n"))
    return f"{fence}{language}\n{shown}\n{fence}"
