"""The table of one version, mean ± standard deviation over the seeds, and its place in the family's page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.mamba.measuring import METHODS, Case, key
from benchmarks.marks import between_marks

__all__ = ["PAGES", "table", "write_page"]

PAGES = {1: "mamba.md", 2: "mamba2.md"}


def table(case: Case, runs: Sequence[dict[str, float]]) -> str:
    """Markdown; losses in nats, accuracies in percent."""
    lines = [
        f"{case.title}; {len(runs)} seeds, mean ± standard deviation; full model {_cell(case, runs, 'full')}"
        f"{' nats' if case.rises else ''}.",
        "",
        f"| states kept of {case.states} | " + " | ".join(map(str, case.counts)) + " |",
        "|---" + "|--:" * len(case.counts) + "|",
    ]
    for method, refit in METHODS:
        cells = [_cell(case, runs, key(method, refit, count)) for count in case.counts]
        name = method if refit == "none" else f"{method} + {refit}"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(case: Case, runs: Sequence[dict[str, float]], cell: str) -> str:
    values = [run[cell] for run in runs]
    scale, digits = (1, 4) if case.rises else (100, 2)
    mean = scale * statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {scale * statistics.stdev(values):.{digits}f}"


def write_page(folder: Path, case: Case, text: str) -> Path:
    """Put the text between the marks of the family's page in a folder, and return the page."""
    path = folder / PAGES[case.version]
    path.write_text(between_marks(path.read_text(), "benchmark", text))
    return path
