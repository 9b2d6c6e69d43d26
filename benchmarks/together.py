"""The same command several times at once on one machine, as the jobs of one runner are, beside one alone.

    python -m benchmarks.together [--jobs 2] [--repeats 3]

`last prune` of 6 bidirectional layers of 512 features and 192 stored states (benchmarks.reducing), 50% of the states;
the programs are compiled beforehand. One job and all jobs by turns, medians. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.commands import run

__all__ = ["measured"]


def measured(jobs: int, repeats: int) -> list[str]:
    """The lines of the table."""
    lines = [f"| command | one alone, s | {jobs} at once, s |", "|---|--:|--:|"]
    with tempfile.TemporaryDirectory() as folder:
        run("-m", "benchmarks.reducing", "--generate", "published", "--folder", folder)
        os.environ["LAST_CACHE_DIR"] = str(Path(folder) / "programs")
        for method in ("last", "obs"):
            command = [
                "prune",
                str(Path(folder) / "model.safetensors"),
                "--ratio",
                "0.5",
                "--method",
                method,
                "--quiet",
            ]
            at_once(1, command, Path(folder))
            seconds: dict[int, list[float]] = {1: [], jobs: []}
            for _ in range(repeats):
                for count, found in seconds.items():
                    found.append(at_once(count, command, Path(folder)))
            cells = (f"{statistics.median(found):.1f}" for found in seconds.values())
            lines.append(f"| prune, {method} | {' | '.join(cells)} |")
    return lines


def at_once(count: int, command: list[str], folder: Path) -> float:
    """Seconds until all of so many processes are done.

    Raises:
        SystemExit: one of them failed.
    """
    begin = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "lastcli", *command, "--force", "--out", str(folder / f"{job}.safetensors")],
            stdout=subprocess.DEVNULL,
        )
        for job in range(count)
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit(f"last {' '.join(command)}: failed")
    return time.perf_counter() - begin


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("\n".join(measured(options.jobs, options.repeats)))
    from benchmarks.machine import machine

    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
