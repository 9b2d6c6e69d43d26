"""The whole comparison by one command: train, sweep, time, and write the table.

    python -m benchmarks.reproduce.run --size small --data FOLDER --tanks FILE [--mnist PATH]

Tasks whose files are not given are left out. Each model is trained and swept in a process of its own, `--workers` at a
time with one core each; compact models are timed afterwards, alone. A run that was stopped goes on where it was.
Programs are kept beside the models, so that the seeds of one task compile most of them once.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.reproduce.table import write_tables
from benchmarks.reproduce.tasks import Sources, available
from benchmarks.reproduce.train import SIZES, add_source_options, sources_of

__all__ = ["run"]

CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0"}

# With several processes side by side each takes one core; their programs are too small to share work within.
ONE_CORE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def run(size: str, seeds: int, sources: Sources, runs: Path, out: Path, tasks: list[str] | None = None) -> Path:
    """Do everything for one size; returns the Markdown's path.

    Raises:
        RuntimeError: a process failed; says which and where its output is.
    """
    started = time.perf_counter()
    chosen = [task for task in tasks or available(sources) if task in SIZES[size]]
    with ThreadPoolExecutor(sources.workers) as pool:
        jobs = [pool.submit(_task, task, size, seeds, sources, runs) for task in _longest_first(chosen)]
        for job in jobs:
            job.result()
    first = [str(runs / size / task / "seed-0") for task in chosen]
    _python(["benchmarks.reproduce.compact", *first], runs / size / "compact.log", one_core=False)
    return write_tables(runs / size, out, datetime.date.today().isoformat(), time.perf_counter() - started)


def _longest_first(tasks: list[str]) -> list[str]:
    """Long tasks start first, so that no worker is left with one at the end."""
    order = ("psmnist", "smnist", "pathfinder", "listops", "tanks", "BasicMotions")
    return sorted(tasks, key=lambda task: order.index(task) if task in order else len(order))


def _task(task: str, size: str, seeds: int, sources: Sources, runs: Path) -> None:
    log = runs / size / f"{task}.log"
    options = ["--size", size, "--seeds", str(seeds), "--out", str(runs), "--workers", "1"]
    for name, path in (("--data", sources.archive), ("--tanks", sources.tanks), ("--mnist", sources.mnist)):
        options += [name, str(path)] if path is not None else []
    one_core = sources.workers > 1
    begin = time.perf_counter()
    _python(["benchmarks.reproduce.train", task, *options], log, one_core)
    trained = time.perf_counter()
    folders = [str(runs / size / task / f"seed-{seed}") for seed in range(seeds)]
    _python(["benchmarks.reproduce.measure", *folders], log, one_core)
    print(f"{task}: trained in {trained - begin:.0f} s, measured in {time.perf_counter() - trained:.0f} s", flush=True)


def _python(module: list[str], log: Path, one_core: bool) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"JAX_COMPILATION_CACHE_DIR": str(log.parent / "programs"), **CACHE, **os.environ}
    if one_core:
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {ONE_CORE}".strip()
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with log.open("a") as stream:
        done = subprocess.run([sys.executable, "-m", *module], stdout=stream, stderr=stream, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(module[:2])} failed with exit code {done.returncode}; see {log}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", help="only these tasks")
    parser.add_argument("--runs", type=Path, default=Path("build/runs"), help="folder of the trained models")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the table")
    add_source_options(parser)
    options = parser.parse_args()
    try:
        print(run(options.size, options.seeds, sources_of(options), options.runs, options.out, options.tasks))
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
