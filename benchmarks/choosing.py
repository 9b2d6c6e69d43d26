"""The figures of docs/choosing.md, from docs/results-small.csv: how far each method goes with what it needs.

    python -m benchmarks.choosing

Run it whenever the table of results was measured anew; a test compares the page with what it writes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.marks import between_marks
from benchmarks.reproduce.aggregate import DRAWN, Column, Record, Summary, curves, summaries
from benchmarks.reproduce.render import percent, table
from lastcli.plan import METHODS, REFITS

__all__ = ["CHOICES", "Choice", "filled", "needs_inputs", "read"]

DOCS = Path(__file__).parent.parent / "docs"
PAGE, FIGURES = DOCS / "choosing.md", DOCS / "results-small.csv"
RATIOS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
FREE, INPUTS = "nothing but the checkpoint", "unlabelled inputs"


@dataclass(frozen=True)
class Choice:
    """One line of the decision: what somebody has, what to type, and whose figures say how far that goes."""

    have: str
    type: tuple[str, ...]
    what: str
    column: Column


CHOICES = (
    Choice(
        "nothing but the checkpoint, and the kept tensors must stay byte for byte",
        ("--method aire",),
        "states that carry little energy go, nothing else changes",
        Column("aire", "none"),
    ),
    Choice(
        "nothing but the checkpoint",
        ("--method obs",),
        "the read-out of the kept states is re-solved for white noise",
        Column("obs", "h2"),
    ),
    Choice(
        "the length, mean and standard deviation of real inputs",
        ("--method obs", "--calibration drawn:length=L,mean=M,std=S"),
        "re-solved on what the model makes of noise",
        Column("obs", "calibrated", inputs=DRAWN),
    ),
    Choice(
        "unlabelled inputs, a model that `last` cannot run",
        ("--method obs", "--layer-inputs R"),
        "re-solved on what your own code [recorded](capture.md) of the layers' inputs",
        Column("obs", "calibrated"),
    ),
    Choice(
        "unlabelled inputs",
        ("--method obs", "--refit sequential", "--calibration C"),
        "re-solved layer after layer, on what the reduced layers before really send",
        Column("obs", "sequential"),
    ),
    Choice(
        "the same, and minutes to spend",
        ("--method obs", "--refit poles", "--calibration C"),
        "poles, B, C and D are searched as well",
        Column("obs", "poles"),
    ),
    Choice(
        "the inputs of the training part, and more minutes",
        ("--method obs", "--refit match", "--steps 2", "--calibration C"),
        "all layers are moved together until the outputs are the original's",
        Column("obs", "match", 2, "train"),
    ),
)  # fmt: skip


def read(path: Path) -> list[Summary]:
    """The rows of a CSV of results over all tasks, one summary for each method with its refit."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [
            Record(
                task=row["task"],
                seed=0,  # the file holds means over the seeds
                method=row["method"],
                refit=row["refit"],
                ratio=float(row["ratio"]),
                value=float(row["value_mean"]),
                drop=float(row["drop_mean"]),
                states=0,
                steps=int(row.get("steps") or 1),
                inputs=row.get("inputs") or "calibration",
            )
            for row in csv.DictReader(file)
        ]
    return summaries(curves(rows))


def needs_inputs(column: Column) -> bool:
    """Whether a run of this method with this refit looked at the model's inputs; the runs of the table had some."""
    return column.inputs != DRAWN and METHODS[column.method].reads_calibration(REFITS[column.refit], available=True)


def reach(summary: Summary) -> str:
    """Mean over the tasks of the largest ratio within a point; a bound where low ratios were not measured."""
    return f"{'≥ ' if summary.ratios[0] > 0 else ''}{percent(summary.own_ratio, 0)}%"


def decision(found: Sequence[Summary]) -> str:
    """What to type with what one has, and how far it goes."""
    known = {summary.column: summary for summary in found}
    lines = ["| you have | type | what happens | states removed within a point |", "|---|---|---|--:|"]
    for choice in CHOICES:
        far = reach(known[choice.column]) if choice.column in known else "not measured"
        flags = " ".join(f"`{flag}`" for flag in choice.type)
        lines.append(f"| {choice.have} | {flags} | {choice.what} | {far} |")
    return "\n".join(lines)


def measured(found: Sequence[Summary], tasks: int) -> str:
    """Every method with its refit, by what it needs, the one that goes furthest first."""
    parts = []
    for title, inputs in ((FREE, False), (INPUTS, True)):
        own = [summary for summary in found if needs_inputs(summary.column) == inputs and summary.tasks == tasks]
        own.sort(key=lambda summary: -summary.own_ratio)
        rows = [[_label(summary.column), reach(summary), *_losses(summary)] for summary in own]
        header = ["method", "within a point", *(f"loss at {percent(ratio, 0)}%" for ratio in RATIOS)]
        parts.append(f"With {title}:\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def _label(column: Column) -> str:
    spoken = column.refit == "none" and METHODS[column.method].eliminates
    return f"{column.method}, read-out left as it was" if spoken else column.label


def _losses(summary: Summary) -> list[str]:
    known = dict(zip(summary.ratios, summary.mean_drops))
    return [percent(known[ratio]) if ratio in known else "–" for ratio in RATIOS]


def filled(page: str, figures: Path = FIGURES) -> str:
    """The page with its figures from the CSV."""
    found = read(figures)
    tasks = max(summary.tasks for summary in found)
    page = between_marks(page, "decision", decision(found))
    return between_marks(page, "measured", measured(found, tasks))


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
