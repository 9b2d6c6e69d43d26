"""The document: which sections a result has, in which order, and what every page has around them."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Sequence
from typing import Any

from lastcli._version import __version__
from lastcli.errors import UsageError
from lastcli.report.blocks import Block
from lastcli.report.html.costs import costs_grid
from lastcli.report.html.curves import curves_section
from lastcli.report.html.energies import energies_section
from lastcli.report.html.made import made_section
from lastcli.report.html.markup import Markup, element, empty
from lastcli.report.html.poles import poles_section
from lastcli.report.html.profiles import profile_section
from lastcli.report.html.states import states_section
from lastcli.report.html.summary import summary
from lastcli.report.html.tables import blocks_markup, grid_markup
from lastcli.report.html.warnings import warnings_section
from lastcli.report.models import inspect_blocks, prune_blocks, score_blocks
from lastcli.report.sweeps import label_of, sweep_blocks
from lastcli.report.text import name_text, ratio_text
from lastcli.results import InspectResult, Origin, PruneResult, Result, ScoreResult, SweepResult

__all__ = ["as_html"]

# Nothing is loaded and nothing is run, whatever a name may try.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
Section = tuple[str, Markup | None]


def as_html(result: Result, origin: Origin | None = None) -> str:
    """The result as one HTML document; of sweep, prune, score and inspect.

    Args:
        origin: what it was made from, for the last section.

    Raises:
        UsageError: the result of another verb.
    """
    if type(result) not in _SECTIONS:
        raise UsageError("A report can be made of sweep, prune, score and inspect.")
    found = list(_SECTIONS[type(result)](result))
    if origin is not None:
        found.append(("How it was made", made_section(origin)))
    title = f"last {result.command}: {name_text(result.checkpoint)}"  # type: ignore[attr-defined]
    body = [element("h1", title), summary(result), warnings_section(result)]
    for name, content in found:
        if content is not None:
            body.append(element("section", element("h2", name), content))
    moment = f", {origin.moment}" if origin is not None and origin.moment else ""
    body.append(element("footer", f"Written by last {__version__}{moment}."))
    return "<!doctype html>\n" + element("html", _head(title), element("body", *body), lang="en") + "\n"


def _head(title: str) -> Markup:
    style = importlib.resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return element(
        "head",
        empty("meta", charset="utf-8"),
        empty("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        empty("meta", name="viewport", content="width=device-width, initial-scale=1"),
        empty("meta", name="color-scheme", content="light dark"),
        element("title", title),
        # of the package itself, no text of anybody else's
        element("style", Markup(style)),
    )


def _sweep(result: SweepResult) -> Sequence[Section]:
    anatomy = result.anatomy
    metric = name_text(result.metric)
    found: list[Section] = [(f"{metric[:1].upper()}{metric[1:]} against ratio", curves_section(result))]
    found.append(("Table", blocks_markup(_without_notes(sweep_blocks(result), result.notes))))
    if anatomy is not None:
        costs = costs_grid(result, anatomy)
        found.append(("Sizes and costs", None if costs is None else grid_markup(costs)))
    if all(row.layers for row in result.rows):
        found.append(("Layers", profile_section(result)))
    if anatomy is not None and anatomy.shown is not None:
        row = result.rows[anatomy.shown]
        variant = (row.method, row.refit)
        at = f"{label_of(variant)} at {ratio_text(row.ratio)}"
        found.append((f"States that stay: {label_of(variant)}", states_section(result, anatomy, variant)))
        found.append((f"Poles: {at}", poles_section(anatomy)))
        found.append((f"Energies: {at}", energies_section(anatomy)))
    return found


def _prune(result: PruneResult) -> Sequence[Section]:
    return [("Table", blocks_markup(_without_notes(prune_blocks(result), result.notes))), *_anatomy(result)]


def _score(result: ScoreResult) -> Sequence[Section]:
    return [("Table", blocks_markup(_without_notes(score_blocks(result), result.notes))), *_anatomy(result)]


def _inspect(result: InspectResult) -> Sequence[Section]:
    return [("Table", blocks_markup(_without_notes(inspect_blocks(result), result.notes))), *_anatomy(result)]


def _anatomy(result: Any) -> Sequence[Section]:
    if result.anatomy is None:
        return []
    return [("Poles", poles_section(result.anatomy)), ("Energies", energies_section(result.anatomy))]


def _without_notes(blocks: Sequence[Block], notes: Sequence[str]) -> Sequence[Block]:
    """The blocks without the notes at their end, which the page says at its beginning."""
    return blocks[: len(blocks) - len(notes)]


_SECTIONS: dict[type, Callable[[Any], Sequence[Section]]] = {
    SweepResult: _sweep,
    PruneResult: _prune,
    ScoreResult: _score,
    InspectResult: _inspect,
}
