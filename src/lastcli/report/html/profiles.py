"""What is left of every layer at every ratio, as a table whose cells are shaded by the share that stays."""

from __future__ import annotations

from collections.abc import Sequence

from lastcli.report.html.markup import Markup, element, joined
from lastcli.report.sweeps import label_of, variants
from lastcli.report.text import count, name_text, ratio_text
from lastcli.results import SweepResult, SweepRow

__all__ = ["profile_section"]


def profile_section(result: SweepResult) -> Markup:
    """One table for each method and refit."""
    tables = []
    for variant in variants(result):
        rows = sorted((r for r in result.rows if (r.method, r.refit) == variant), key=lambda row: row.ratio)
        tables.append(_table(result, rows, label_of(variant)))
    about = element(
        "p",
        "States that a layer keeps (of each channel, where channels have states of their own). The darker, the larger "
        "the share that stays; the chosen column is underlined.",
        class_="about",
    )
    return joined([about, element("div", *tables, class_="tables")])


def _table(result: SweepResult, rows: Sequence[SweepRow], title: str) -> Markup:
    names = result.layer_names or tuple(f"layer {i}" for i in range(len(rows[0].layers)))
    full = result.layer_states or rows[0].layers
    chosen = [row == result.chosen for row in rows]
    head = [element("th", "layer", scope="col"), element("th", "full", scope="col")]
    head += [
        element("th", ratio_text(row.ratio), scope="col", class_="chosen" if mark else None)
        for row, mark in zip(rows, chosen)
    ]
    lines = []
    for layer, name in enumerate(names):
        cells = [element("th", name_text(name), scope="row"), _cell(full[layer], full[layer], False)]
        cells += [_cell(row.layers[layer], full[layer], mark) for row, mark in zip(rows, chosen)]
        lines.append(element("tr", *cells))
    table = element(
        "table",
        element("caption", title),
        element("thead", element("tr", *head)),
        element("tbody", *lines),
        class_="heat",
    )
    return element("div", table, class_="scroll", tabindex=0)


def _cell(kept: int, full: int, chosen: bool) -> Markup:
    share = kept / max(full, 1)
    classes = " ".join(["strong"] * (share > 0.78) + ["middle"] * (0.6 < share <= 0.78) + ["chosen"] * chosen)
    return element("td", count(kept), style=f"--share:{share:.3f}", class_=classes or None)
