"""Recipes for people: the plan of one with its sources, what is wrong with some, and a first one as commented YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lastcli.report.blocks import Block, Cell, Column, Line, grid, notes_lines
from lastcli.report.text import name_text, safe_text

if TYPE_CHECKING:
    from lastcli.results import ConfigValue, DraftOption, DraftRecipe, RecipeCheckResult, RecipeShowResult

__all__ = ["MODELINE", "check_blocks", "draft_yaml", "show_blocks"]

# What editors with the YAML language server read.
MODELINE = "# yaml-language-server: $schema="
_WIDTH = 100


def show_blocks(result: RecipeShowResult) -> list[Block]:
    """The options that are set or decided, the description of the model, and the names of the others."""
    recipe = None if result.recipe is None else name_text(Path(result.recipe).name)
    said = {key: value for key, value in result.options.items() if value.value not in (None, False)}
    title = "Plan" if recipe is None else f"Plan of {safe_text(result.recipe)}"
    blocks: list[Block] = [_values(said, title, "option", recipe)]
    if result.model:
        family = f": {name_text(result.family)}" if result.family else ""
        blocks.append(_values(result.model, f"Model{family}", "option", recipe))
    others = ", ".join(key for key in result.options if key not in said)
    return [*blocks, Line(f"Not set: {others}.", "dim"), *notes_lines(result.notes)]


def _values(values: Mapping[str, ConfigValue], title: str, head: str, recipe: str | None) -> Block:
    columns = [Column(head, False), Column("value", False), Column("source", False)]
    rows = [
        (name_text(key), _shown(one.value), Cell(_source(one.source, recipe), _TONES.get(one.source, "")))
        for key, one in values.items()
    ]
    return grid(columns, rows, title)


_TONES = {"default": "dim", "assumed": "mark"}
_SOURCES = {
    "found": "found in this folder",
    "bundled": "bundled model",
    "family": "taken for this family",
    "method": "goes with the method",
}


def _source(source: str, recipe: str | None) -> str:
    if source == "recipe" and recipe is not None:
        return f"recipe {recipe}"
    return _SOURCES.get(source, source)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return safe_text(", ".join(map(str, value)))
    if isinstance(value, Mapping):  # the numbers of a paper, which have a table of their own in a sweep
        return safe_text(value.get("source", value))
    return safe_text(str(value).lower() if isinstance(value, bool) else value)


def check_blocks(result: RecipeCheckResult) -> list[Block]:
    """A line for each mistake, `FILE:LINE: sentence`, and what was found in recipes without any."""
    blocks: list[Block] = []
    for recipe in result.recipes:
        name = safe_text(recipe.recipe)
        if recipe.ok:
            blocks.append(Line(f"{name}: in order.", "good"))
            blocks += [Line(f"  {safe_text(sentence)}", "dim") for sentence in recipe.said]
        for problem in recipe.problems:
            line = "" if problem.line is None else f"{problem.line}:"
            blocks.append(Line(f"{name}:{line} {safe_text(problem.message)}", "bad"))
    wrong = sum(not recipe.ok for recipe in result.recipes)
    if wrong and len(result.recipes) > 1:
        blocks.append(Line(f"{wrong} of {len(result.recipes)} recipes cannot run as they are."))
    return blocks


def draft_yaml(draft: DraftRecipe, name: str) -> str:
    """The recipe with comments; `name` is that of its file."""
    lines = [] if draft.schema_file is None else [f"{MODELINE}{safe_text(draft.schema_file)}"]
    lines += [f"# {line}" for line in _head(safe_text(name))]
    lines += ["", *_comment(draft.about), *_set("checkpoint", draft.checkpoint)]
    for key, value in draft.naming.items():
        lines += _set(key, value)
    lines += ["", *_comment("What the model is: what was said, or the file and its tensors say, and what is assumed.")]
    lines += ["model:", *_set("family", draft.family, "  ")]
    for key, value in draft.map.items():
        lines += _set(key, value, "  ")
    for option in draft.options:
        lines += _option(option)
    lines += ["", *_data(draft)]
    lines += ["", *_comment("What goes, and how much. `last methods` has all methods and refits.")]
    lines += _set("methods", list(draft.methods), note="compared by sweep")
    lines += _set("method", draft.methods[0], note="of prune")
    lines += ["# refit: calibrated   # of prune; refits: [none, h2, calibrated] of sweep"]
    lines += ["ratios: 0:0.9:0.1   # of sweep", "ratio: 0.5   # of prune"]
    lines += [*_set("out", draft.out, note="where prune writes"), ""]
    return "\n".join([*lines, *_GATES, ""])


def _head(name: str) -> tuple[str, ...]:
    given = "" if name == "last.yaml" else f" --recipe {name}"
    return (
        f"Options of `last sweep{given}` and `last prune{given}`.",
        "Lines behind a # are choices that are left to you.",
        f"last recipe check {name}   finds mistakes",
        f"last recipe show {name}    says what a run would take, and why",
    )


_GATES = (
    "# Gates: the largest ratio within a drop is chosen, and a sweep that loses more fails with exit code 1.",
    "# max_drop: 0.01   # in place of ratio",
    "# fail_over: 0.02",
    "# fail_under: 0.95   # the metric itself",
    "",
    "# Numbers of a paper, shown beside the measured ones.",
    "# published:",
    "#   source: where they are printed",
    "#   metric: accuracy",
    "#   full: 0.98",
    "#   methods:",
    "#     last: {0.5: 0.97}   # ratio: value",
)


def _option(option: DraftOption) -> Iterable[str]:
    value = option.value
    if option.settled:
        return _set(option.key, value, "  ", note=_FROM.get(option.source, option.source))
    accepted = f"; one of {', '.join(map(_yaml, option.choices))}" if option.choices else ""
    how = {"assumed": "assumed", "tensors": "shown by the tensors"}.get(option.source, f"from the {option.source}")
    text = f"{option.key}, {how}: {option.help}{accepted}"
    return [*_comment(text, "  "), f"  # {option.key}: {_yaml(value)}"]


_FROM = {
    "flag": "as given",
    "tensors": "shown by the tensors",
    "file": "the file says so",
    "sidecar": "the sidecar says so",
}


def _data(draft: DraftRecipe) -> list[str]:
    lines = _comment(f"Held-out data: x {draft.x}; y {draft.y}. What else may stand here: docs/data.md.")
    if draft.data is None:
        lines += ["# data: test.npz"]
        own = "# forward: mine.py:forward   # the model around the layers: docs/forward.md"
        lines += [own if draft.metric is None else f"# metric: {draft.metric}"]
        lines += ["# scale: 1/255   # of integer inputs"] * draft.integers
    else:
        lines += _set("data", draft.data)
    lines += _comment("Unlabelled inputs, which refits and some methods need; none of the examples above.")
    if draft.calibration is None:
        return [*lines, "# calibration: train.npz", "# calibration_limit: 256"]
    return [*lines, *_set("calibration", draft.calibration)]


def _set(key: str, value: Any, indent: str = "", note: str = "") -> list[str]:
    return [f"{indent}{key}: {_yaml(value)}" + (f"   # {safe_text(note)}" if note else "")]


def _comment(text: str, indent: str = "") -> list[str]:
    return [
        f"{indent}# {line}" for line in textwrap.wrap(safe_text(text), _WIDTH - len(indent), break_on_hyphens=False)
    ]


def _yaml(value: Any) -> str:
    """A value on one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")
