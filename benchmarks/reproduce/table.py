"""Write the table: `python -m benchmarks.reproduce.table RUNS/SIZE --out docs`.

Writes `results-SIZE.csv`, two figures, and the tables between the marks of `results.md`; what people wrote around the
marks stays.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

from benchmarks.marks import between_marks
from benchmarks.reproduce.collect import Collection, collect
from benchmarks.reproduce.plots import draw
from benchmarks.reproduce.render import csv_text, markdown

__all__ = ["machine_text", "write_tables"]


def write_tables(folder: Path, out: Path, date: str, wall: float | None = None) -> Path:
    """Write all files for RUNS/SIZE and return the Markdown's path."""
    size = folder.name
    collection = collect(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"results-{size}.csv").write_text(csv_text(collection))
    draw(collection, out / f"results-{size}.svg", out / f"results-{size}-tasks.svg")
    text = "\n\n".join(
        [
            machine_text(collection, date, wall),
            f"![Mean loss over tasks against the share of states removed](results-{size}.svg)",
            f"![Every task](results-{size}-tasks.svg)",
            markdown(collection),
        ]
    )
    path = out / "results.md"
    before = path.read_text() if path.exists() else "# Results\n"
    path.write_text(between_marks(before, size, text))
    return path


def machine_text(collection: Collection, date: str, wall: float | None) -> str:
    """Date, versions, machine and times."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("lastcli", "jax", "flax", "numpy"))
    device = collection.runs[0].training["device"]
    training = sum(run.training["seconds"] for run in collection.runs) / 60
    measuring = sum(run.measured["seconds"] for run in collection.runs) / 60
    text = (
        f"{date}; {versions}, Python {platform.python_version()}; {os.cpu_count()} cores of {_processor()}; trained on "
        f"{device}. {len(collection.runs)} models: {training:.0f} core-minutes of training, {measuring:.0f} of sweeps"
    )
    return text + ("." if wall is None else f"; {wall / 60:.0f} minutes by the clock, everything together.")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RUNS/SIZE")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--date", default=datetime.date.today().isoformat())
    options = parser.parse_args()
    try:
        print(write_tables(options.folder, options.out, options.date))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
