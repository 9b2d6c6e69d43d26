"""What it takes to choose and refit the states of large models: seconds and memory of `last score` and `last prune`.

    python -m benchmarks.reducing [--size published|deep|wide|all] [--ratio 0.5] [--refits h2,calibrated,poles,match]

published: 6 bidirectional layers of 512 features and 192 stored states, sequences of 1024 steps; deep: 64 layers of
1,024 stored states; wide: 64 layers of 4,096, scores alone. Random weights and inputs. `match` among the refits matches
the outputs of the whole model (half an hour at the published size on two cores). Every command is a process of
its own and runs once, all with one folder of compiled programs that is empty at first. Memory is the peak above that of
the imports, and what the tensors of the model take is named beside it. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.commands import Run, imports_alone, run

__all__ = ["measured"]

NAMES = ("published", "deep", "wide")


def generate(name: str, folder: Path) -> None:
    """Write `model.safetensors` and `data.npz`; in a process of its own, whose memory is not measured."""
    from benchmarks.speed import SIZES, Contest, Size

    size = {
        "published": SIZES["large"],
        "deep": Size(layers=64, features=64, states=1024, length=256, examples=32, batch=32),
        "wide": Size(layers=64, features=16, states=4096, length=16, examples=1, batch=1),
    }[name]
    Contest(size, folder)


def measured(name: str, ratio: str, refits: Sequence[str]) -> None:
    """Print the rows of one model, as they are done."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        run("-m", "benchmarks.reducing", "--generate", name, "--folder", text)
        model, data, out = folder / "model.safetensors", folder / "data.npz", folder / "out.safetensors"
        os.environ["LAST_CACHE_DIR"] = str(folder / "programs")
        base, size = imports_alone(), model.stat().st_size / 2**20
        commands: dict[str, list[Any]] = {"score": ["score", model]}
        if name != "wide":
            pruned = ["prune", model, "--ratio", ratio, "--out", out, "--method"]
            commands["prune, last"] = [*pruned, "last"]
            for refit in refits:
                # few random inputs say little about all inputs: far off there, and written all the same
                given = [] if refit == "h2" else ["--calibration", data, "--force"]
                if refit == "match":
                    commands["prune, obs + calibrated, matched"] = [*pruned, "obs", *given, "--match-output"]
                else:
                    commands[f"prune, obs + {refit}"] = [*pruned, "obs", "--refit", refit, *given]
        for what, command in commands.items():
            found = run("-m", "lastcli", *map(str, command), "--quiet")
            out.unlink(missing_ok=True)
            print("| " + " | ".join([name, f"{size:,.0f}", what, *_cells(found, base)]) + " |", flush=True)


def _cells(found: Run, base: int) -> list[str]:
    return [f"{found.seconds:.1f}", f"{found.busy:.1f}", f"{max(0, found.peak - base) / 2**20:,.0f}"]


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*NAMES, "all"], default="all")
    parser.add_argument("--ratio", default="0.5")
    parser.add_argument("--refits", default="h2,calibrated,poles")
    parser.add_argument("--generate", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate is not None:
        generate(options.generate, options.folder)
        return
    print("| model | file, MiB | command | seconds | processor seconds | peak memory above the imports, MiB |")
    print("|---|--:|---|--:|--:|--:|", flush=True)
    for name in NAMES if options.size == "all" else [options.size]:
        measured(name, options.ratio, options.refits.split(","))
    # JAX is imported late: a process inherits the peak of the one that starts it
    from benchmarks.machine import machine

    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
