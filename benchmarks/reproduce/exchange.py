"""Whether moving states between layers by end-to-end error beats the ranking over all layers.

    python -m benchmarks.reproduce.exchange FOLDER... [--ratios 0.7,0.8,0.9] [--refits calibrated,sequential,match]

The loss on the test part with `obs`, whose layers compete by their own errors, and with `obs-exchange`, which exchanges
states between them by the error of the outputs; both see the calibration inputs. FOLDER is one trained model of
`benchmarks.reproduce.run`. Prints a Markdown table, as models are done.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import lastcli
from benchmarks.reproduce.measure import model_options

__all__ = ["compared"]

METHODS = ("obs", "obs-exchange")


def compared(folder: Path, ratios: str, refits: Sequence[str]) -> list[list[str]]:
    """The lines of one trained model: task, seed, refit, ratio, and of both methods the states and the points lost."""
    training = json.loads((folder / "training.json").read_text())
    scale = 100.0 if training["metric"] == "accuracy" else 1.0  # a fit index is in percent already
    found = []
    for refit in refits:
        result = lastcli.sweep(
            folder / "model.safetensors",
            methods=METHODS,
            refits=(refit,),
            ratios=ratios,
            **model_options(folder, training),
        )
        by_method = {method: [row for row in result.rows if row.method == method] for method in METHODS}
        for plain, exchanged in zip(*by_method.values()):
            cells = [training["task"], str(training["seed"]), refit, f"{plain.ratio:.0%}"]
            for row in (plain, exchanged):
                cells += [" ".join(map(str, row.layers)), f"{scale * (result.baseline - row.value):.2f}"]
            found.append(cells)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--ratios", default="0.7,0.8,0.9")
    parser.add_argument("--refits", default="calibrated,sequential")
    options = parser.parse_args()
    header = ["task", "seed", "refit", "removed", *(f"{method}, {what}" for method in METHODS for what in _SHOWN)]
    print("| " + " | ".join(header) + " |", "|---" * len(header) + "|", sep="\n", flush=True)
    for folder in options.folders:
        for row in compared(folder, options.ratios, options.refits.split(",")):
            print("| " + " | ".join(row) + " |", flush=True)


_SHOWN = ("states", "points lost")

if __name__ == "__main__":
    main()
