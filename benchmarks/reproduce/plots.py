"""The curves as figures."""

from __future__ import annotations

from pathlib import Path

from benchmarks.reproduce.aggregate import TRAINING, Column, Curve, curves, summaries
from benchmarks.reproduce.collect import Collection

__all__ = ["SHOWN", "draw"]

# Column → line style; the other methods are in the tables.
SHOWN = {
    Column("random", "none"): {"color": "0.7", "linestyle": ":"},
    Column("uniform-hinf", "none"): {"color": "tab:olive", "linestyle": "--"},
    Column("global-hinf", "none"): {"color": "tab:brown", "linestyle": "--"},
    Column("lamp", "none"): {"color": "tab:pink", "linestyle": "--"},
    Column("last", "none"): {"color": "tab:blue"},
    Column("aire", "none"): {"color": "tab:orange"},
    Column("last", "calibrated"): {"color": "tab:blue", "linestyle": "-."},
    Column("obs", "h2"): {"color": "tab:green", "linestyle": "-."},
    Column("obs", "calibrated"): {"color": "tab:red"},
    Column("obs", "poles"): {"color": "tab:purple"},
    Column("obs", "match", 2, TRAINING): {"color": "black"},
}


def draw(collection: Collection, overall: Path, tasks: Path) -> None:
    """Write the mean loss over tasks to `overall` and one panel for each task to `tasks` (SVG)."""
    import matplotlib

    matplotlib.use("svg")
    # Text as text and no time stamp: the same numbers give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "last", "font.size": 9}):
        _overall(collection, overall)
        _by_task(collection, tasks)


def _overall(collection: Collection, path: Path) -> None:
    import matplotlib.pyplot as plt

    found = curves(collection.records)
    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    for summary in summaries(found):
        style = SHOWN.get(summary.column)
        if style is not None:
            x = [100 * ratio for ratio in summary.ratios]
            axes.plot(x, [100 * drop for drop in summary.mean_drops], label=summary.column.label, **style)
    axes.axhline(1, color="0.5", linewidth=0.6)
    axes.set(xlabel="states removed, %", ylabel="mean loss over tasks, points", ylim=(-2, 40))
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _by_task(collection: Collection, path: Path) -> None:
    import matplotlib.pyplot as plt

    found = curves(collection.records)
    rows = -(-len(collection.tasks) // 4)
    figure, grid = plt.subplots(rows, 4, figsize=(13, 2.9 * rows), layout="constrained", squeeze=False)
    for axes, task in zip(grid.flat, collection.tasks):
        for curve in found:
            if curve.task == task:
                _panel(axes, curve)
        axes.set_title(task)
    for axes in list(grid.flat)[len(collection.tasks) :]:
        axes.set_axis_off()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(axes: object, curve: Curve) -> None:
    style = SHOWN.get(curve.column)
    if style is None:
        return
    x = [100 * ratio for ratio in curve.ratios]
    y = [100 * value for value in curve.values]
    (line,) = axes.plot(x, y, label=curve.column.label, **style)  # type: ignore[attr-defined]
    low = [value - 100 * spread for value, spread in zip(y, curve.spreads)]
    high = [value + 100 * spread for value, spread in zip(y, curve.spreads)]
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.12, linewidth=0)  # type: ignore[attr-defined]
