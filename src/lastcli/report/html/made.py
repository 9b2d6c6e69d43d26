"""What a result was made from: the command, the recipe, the files and their hashes, the versions."""

from __future__ import annotations

import shlex

from lastcli.report.blocks import Column, grid
from lastcli.report.html.markup import Markup, element, joined
from lastcli.report.html.tables import grid_markup
from lastcli.report.text import name_text
from lastcli.results import Origin

__all__ = ["command_text", "made_section", "recipe_text"]


def made_section(origin: Origin) -> Markup:
    """Everything that is needed to make the result again."""
    parts = []
    if origin.command:
        parts += [element("h3", "Command"), element("pre", command_text(origin))]
    parts += [
        element("h3", "Recipe"),
        element("p", "The same run as a file: last.yaml, or --recipe FILE.", class_="about"),
        element("pre", recipe_text(origin)),
    ]
    if origin.files:
        rows = [(file.role, name_text(file.path), file.sha256) for file in origin.files]
        columns = [Column("", False), Column("file", False), Column("sha256", False)]
        parts += [element("h3", "Files"), grid_markup(grid(columns, rows))]
    said = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    parts += [element("h3", "Versions"), element("p", f"{said}. {origin.moment}")]
    return joined(parts)


def command_text(origin: Origin) -> str:
    """The command as it would be typed."""
    return shlex.join(["last", *origin.command])


def recipe_text(origin: Origin) -> str:
    """The recipe as YAML."""
    import yaml

    # one key a line, lists on the line of their key
    return "".join(
        yaml.safe_dump(
            {key: value},
            default_flow_style=None if isinstance(value, list) else False,
            allow_unicode=True,
            sort_keys=False,
            width=100,
        )
        for key, value in origin.recipe.items()
    ).strip()
