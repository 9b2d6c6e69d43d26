"""How the cost of `last score`, `prune` and `sweep` grows with a model and its data.

    python -m benchmarks.growth [--out docs/growth.svg] [--repeats 3]

One quantity at a time is halved and doubled, from 4 layers of 96 features and 64 stored states, length 784, 64
examples and nine ratios, random weights. Every command runs once before it is timed (programs are compiled); medians.
Prints a Markdown table and draws the figure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lastcli
from benchmarks.machine import machine
from benchmarks.speed import SIZES, Contest, Size
from lastcli.cli.compile_cache import VARIABLE, enable_compile_cache

__all__ = ["QUANTITIES", "draw", "measured"]

BASE = SIZES["small"]
RATIOS = 9
QUANTITIES: dict[str, tuple[int, ...]] = {
    "states": (16, 32, 64, 128, 256),
    "layers": (1, 2, 4, 8),
    "features": (24, 48, 96, 192),
    "length": (196, 392, 784, 1568),
    "examples": (16, 32, 64, 128, 256),
    "ratios": (3, 9, 18, 36),
}
COMMANDS = ("score", "prune, obs + calibrated", "sweep, last")

Point = dict[str, float]


def measured(quantity: str, value: int, repeats: int) -> Point:
    """Seconds of every command with one quantity at this value."""
    ratios, size = RATIOS, BASE
    if quantity == "ratios":
        ratios = value
    elif quantity == "examples":
        size = replace(BASE, examples=value)
    else:
        size = replace(BASE, **{quantity: value})
    with tempfile.TemporaryDirectory() as text:
        return {name: _median(run, repeats) for name, run in _commands(size, ratios, Path(text)).items()}


def _commands(size: Size, ratios: int, folder: Path) -> Mapping[str, Callable[[], Any]]:
    contest = Contest(size, folder)
    model, data, out = contest.checkpoint, contest.data, folder / "out.safetensors"
    listed = ",".join(f"{number / ratios * 0.9:.4f}" for number in range(ratios))
    given = {"ratio": "0.5", "method": "obs", "refit": "calibrated", "calibration": data, "force": True}
    return dict(
        zip(
            COMMANDS,
            (
                lambda: lastcli.score(model),
                lambda: lastcli.prune(model, out, **given),  # type: ignore[arg-type]
                lambda: lastcli.sweep(model, method="last", refit="none", ratios=listed, data=data),
            ),
        )
    )


def _median(run: Callable[[], Any], repeats: int) -> float:
    run()
    return statistics.median(_seconds(run) for _ in range(repeats))


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def draw(found: Mapping[str, Mapping[int, Point]], path: Path) -> None:
    """One panel a command, one line a quantity: times of the base against multiples of the base (SVG)."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    base = {"ratios": RATIOS} | {name: getattr(BASE, name) for name in QUANTITIES if name != "ratios"}
    # Text as text and no time stamp: the same numbers give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "last", "font.size": 9}):
        figure, panels = plt.subplots(1, len(COMMANDS), figsize=(10, 3.4), sharex=True, sharey=True)
        for command, panel in zip(COMMANDS, panels):
            for quantity, points in found.items():
                multiples = [value / base[quantity] for value in points]
                at_base = points[base[quantity]][command]
                panel.plot(
                    multiples, [point[command] / at_base for point in points.values()], "o-", ms=3, label=quantity
                )
            ends = [1 / 4, 4]
            panel.plot(ends, ends, color="0.7", linestyle=":", label="in proportion")
            panel.set(title=command, xlabel="multiple of the base", xscale="log", yscale="log")
            panel.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
            panel.set_yticks([0.25, 0.5, 1, 2, 4, 8], ["¼", "½", "1", "2", "4", "8"])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("time, multiple of that of the base")
        panels[-1].legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to draw the figure")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, dict[int, Point]] = {}
    print("| quantity | value | " + " | ".join(f"{name}, s" for name in COMMANDS) + " |")
    print("|---|--:|" + "--:|" * len(COMMANDS), flush=True)
    with tempfile.TemporaryDirectory() as programs:
        os.environ[VARIABLE] = programs
        enable_compile_cache()
        for quantity, values in QUANTITIES.items():
            for value in values:
                point = measured(quantity, value, options.repeats)
                found.setdefault(quantity, {})[value] = point
                cells = " | ".join(f"{point[name]:.2f}" for name in COMMANDS)
                print(f"| {quantity} | {value} | {cells} |", flush=True)
    if options.out is not None:
        draw(found, options.out)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
