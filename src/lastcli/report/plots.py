"""A sweep as a picture, in memory: whoever asked writes it. Needs Matplotlib, which is the extra `plot`."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lastcli.errors import UsageError
from lastcli.report.sweeps import variants
from lastcli.report.text import is_share, safe_text
from lastcli.results import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SUFFIXES", "plot_format", "plot_sweep"]

SUFFIXES = (".png", ".svg", ".pdf")
_MARKERS = "osD^v<>Ph*X"


def plot_format(path: Path) -> str:
    """The format of a plot by its suffix: "png", "svg" or "pdf"; to be asked before the sweep is computed.

    Raises:
        UsageError: another suffix, or Matplotlib is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: a plot is written as {', '.join(SUFFIXES)}.")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("Plots need Matplotlib: pip install 'lastcli[plot]'.")
    return suffix[1:]


def plot_sweep(result: SweepResult, form: str) -> bytes:
    """The metric against the ratio, a line for each method and refit, as a file of a format of `plot_format`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    _draw(figure.add_subplot(), result)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=150)
    return buffer.getvalue()


def _draw(axes: Axes, result: SweepResult) -> None:
    unit = 100.0 if is_share(result.metric) else 1.0
    axes.axhline(unit * result.baseline, color="grey", linestyle="--", linewidth=1, label="full model")
    for index, (method, refit) in enumerate(variants(result)):
        rows = sorted((r for r in result.rows if (r.method, r.refit) == (method, refit)), key=lambda r: r.ratio)
        x = [100 * row.ratio for row in rows]
        label = _literal(method if refit == "none" else f"{method} + {refit}")
        marker = _MARKERS[index % len(_MARKERS)]
        (line,) = axes.plot(x, [unit * row.value for row in rows], marker=marker, markersize=4, label=label)
        if all(row.ci_low is not None and row.ci_high is not None for row in rows):
            low, high = ([unit * getattr(row, end) for row in rows] for end in ("ci_low", "ci_high"))
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    if result.chosen is not None:
        point = 100 * result.chosen.ratio, unit * result.chosen.value
        axes.plot(*point, marker="o", markersize=13, fillstyle="none", color="black", linestyle="", label="chosen")
    axes.set_xlabel("states pruned (%)")
    axes.set_ylabel(f"{result.metric} (%)" if is_share(result.metric) or result.metric == "fit" else result.metric)
    axes.set_title(_literal(f"{Path(result.checkpoint).name}, n = {result.n}"), fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _literal(text: Any) -> str:
    """A name as it is: no mathematics between dollar signs, and no leading underscore that would hide it."""
    return "\u200a" * str(text).startswith("_") + safe_text(text, 60).replace("$", r"\$")
