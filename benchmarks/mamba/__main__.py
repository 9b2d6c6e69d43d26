"""Small Mamba models trained here and reduced: characters of Python's own documentation, and associative recall.

    python -m benchmarks.mamba [--seeds 3] [--work FOLDER] [--pages docs/families]

Mamba 1 predicts the next character, Mamba 2 answers which value a key had; both are trained from nothing with Adam,
calibrated on inputs they were trained on, and measured on others. A few minutes of one core for each seed. Prints two
Markdown tables with mean and standard deviation over the seeds; --pages also writes them between the marks of
mamba.md and mamba2.md. With --work a stopped run goes on where it was.

For the published models, whoever has their folders:

    last sweep mamba-130m --ratios 0.5 --methods obs,contribution,uniform-magnitude --refits none,calibrated \\
        --calibration train.npz --data wikitext.npz --metric perplexity

and the same for mamba2-130m. GHOST publishes a perplexity about 1 higher at 50% of the states: the column `drop` is
relative, so it is to be compared with 1 / perplexity of the full model.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.mamba.measuring import CASES, measured
from benchmarks.mamba.table import table, write_page


def main() -> None:
    """Train, reduce, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of Adam, for each model (default: 800 and 1500)")
    parser.add_argument("--models", default="1,2", help="which of Mamba 1 and 2")
    parser.add_argument("--work", type=Path, help="keep the trained models and what was measured there")
    parser.add_argument("--pages", type=Path, help="folder of mamba.md and mamba2.md, to write the tables into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for case in CASES.values():
            if str(case.version) not in options.models.split(","):
                continue
            steps = options.steps or case.steps
            runs = [measured(folder, case, seed, steps) for seed in range(options.seeds)]
            seconds = sum(run["seconds"] for run in runs) / len(runs)
            where = f"Printed by `python -m benchmarks.mamba`; {machine()}; {seconds:.0f} seconds of a core a seed."
            text = f"{table(case, runs)}\n\n{where}"
            print(text, end="\n\n", flush=True)
            if options.pages:
                write_page(options.pages, case, text)


if __name__ == "__main__":
    main()
