"""How much the choice of the calibration examples matters: one method and refit, calibrated on one block after another.

    python -m benchmarks.calibration CHECKPOINT --data FILE.npz [--first 2000] [--examples 128] [--blocks 8]

Measured on the first examples of the file, calibrated on blocks spread evenly over the rest. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np

import lastcli
from benchmarks.machine import machine


def blocks(total: int, first: int, examples: int, count: int) -> list[tuple[int, int]]:
    """`count` disjoint ranges of `examples` each, the first right after the measured ones and the last at the end.

    Raises:
        SystemExit: the file is too short for them.
    """
    if total - first < count * examples:
        raise SystemExit(f"{total} examples are too few for the first {first} and {count} blocks of {examples}.")
    starts = np.linspace(first, total - examples, count).astype(int)
    return [(int(start), int(start) + examples) for start in starts]


def table(options: argparse.Namespace) -> list[str]:
    """Lines of Markdown: a row a block, and mean and standard deviation over them."""
    with np.load(options.data) as arrays:
        total = len(arrays["y"])
    ratios = [float(ratio) for ratio in options.ratios.split(",")]
    lines = [
        "| calibrated on | " + " | ".join(f"{ratio:.0%}" for ratio in ratios) + " |",
        "|---" * (1 + len(ratios)) + "|",
    ]
    values = []
    for start, stop in blocks(total, options.first, options.examples, options.blocks):
        result = lastcli.sweep(
            options.checkpoint,
            data=f"{options.data}:0:{options.first}",
            calibration=f"{options.data}:{start}:{stop}",
            scale=options.scale,
            ratios=options.ratios,
            methods=options.method,
            refits=options.refit,
        )
        values.append([100 * row.value for row in result.rows])
        lines.append(f"| {start} to {stop - 1} | " + " | ".join(f"{value:.2f}" for value in values[-1]) + " |")
    spread = [f"{statistics.mean(column):.2f} ± {statistics.stdev(column):.2f}" for column in zip(*values)]
    return [*lines, "| mean ± standard deviation | " + " | ".join(spread) + " |"]


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data", required=True, help="npz with x and y")
    parser.add_argument("--scale", help="what integer inputs are multiplied with, for example 1/255")
    parser.add_argument("--first", type=int, default=2000, help="examples measured")
    parser.add_argument("--examples", type=int, default=128, help="examples of a calibration block")
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--ratios", default="0.75,0.81,0.88")
    parser.add_argument("--method", default="obs")
    parser.add_argument("--refit", default="calibrated")
    options = parser.parse_args()
    print("\n".join(table(options)))
    print(
        f"\nAccuracy in percent on the first {options.first} examples, {options.method} + {options.refit}. {machine()}"
    )


if __name__ == "__main__":
    main()
