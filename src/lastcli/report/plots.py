"""Results as pictures, in memory: whoever asked writes them. Needs Matplotlib, which is the extra `plot`.

A sweep is drawn as its curves, a score as the energies of every layer, an inspected model as its poles.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UsageError
from lastcli.report.sweeps import variants
from lastcli.report.text import is_share, safe_text
from lastcli.results import Anatomy, InspectResult, Result, ScoreResult, SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SUFFIXES", "plot", "plot_energies", "plot_format", "plot_poles", "plot_sweep"]

SUFFIXES = (".png", ".svg", ".pdf")
_MARKERS = "osD^v<>Ph*X"
# Longer lines are drawn without markers; more layers have no legend.
_MOST_MARKS, _MOST_NAMES = 64, 12


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


def plot(result: Result, form: str) -> bytes:
    """The picture of a result, as a file of a format of `plot_format`.

    Raises:
        UsageError: a result that has none.
    """
    if isinstance(result, SweepResult):
        return plot_sweep(result, form)
    if isinstance(result, ScoreResult):
        return plot_energies(result, form)
    if isinstance(result, InspectResult) and result.anatomy is not None:
        return plot_poles(result.anatomy, Path(result.checkpoint).name, form)
    raise UsageError("Pictures are drawn of sweep, score and inspect.")


def plot_energies(result: ScoreResult, form: str) -> bytes:
    """Energies of the states of every layer in descending order, on a logarithmic scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for index, layer in enumerate(result.layers):
        energy = np.sort(np.asarray(layer.energy, np.float64).reshape(-1))[::-1]
        energy = energy[np.isfinite(energy) & (energy > 0)]
        if energy.size:
            share = 100 * np.arange(1, energy.size + 1) / energy.size
            marker = _MARKERS[index % len(_MARKERS)] if energy.size <= _MOST_MARKS else None
            axes.plot(share, energy, marker=marker, markersize=3, linewidth=1.2, label=_literal(layer.name))
    axes.set_yscale("log")
    axes.set_xlabel("states of the layer, strongest first (%)")
    axes.set_ylabel(f"energy ({_literal(result.method)})")
    axes.set_title(_literal(Path(result.checkpoint).name), fontsize=10)
    axes.grid(alpha=0.3)
    if 0 < len(axes.lines) <= _MOST_NAMES:
        axes.legend(fontsize=8)
    return _saved(figure, form)


def plot_poles(anatomy: Anatomy, title: str, form: str) -> bytes:
    """The poles of every layer in the unit circle.

    Raises:
        UsageError: no layer has poles that do not depend on the input.
    """
    from matplotlib.figure import Figure

    layers = [layer for layer in anatomy.layers if layer.poles is not None]
    if not layers:
        raise UsageError("The layers are selective: their poles depend on the input, so there is nothing to draw.")
    across = min(len(layers), 4)
    down = -(-len(layers) // across)
    figure = Figure(figsize=(2.6 * across, 2.8 * down + 0.4), layout="constrained")
    around = np.exp(2j * np.pi * np.linspace(0, 1, 361))
    for place, layer in enumerate(layers, 1):
        axes = figure.add_subplot(down, across, place)
        axes.plot(around.real, around.imag, color="grey", linewidth=0.8)
        axes.plot(layer.poles.real, layer.poles.imag, "o", markersize=3, markeredgewidth=0)
        axes.set_aspect("equal")
        axes.set_title(_literal(layer.name), fontsize=8)
        axes.tick_params(labelsize=7)
    figure.suptitle(_literal(title), fontsize=10)
    return _saved(figure, form)


def _saved(figure: Figure, form: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=150)
    return buffer.getvalue()


def plot_sweep(result: SweepResult, form: str) -> bytes:
    """The metric against the ratio, a line for each method and refit, as a file of a format of `plot_format`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    _draw(figure.add_subplot(), result)
    return _saved(figure, form)


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
