"""The long run of the mutation fuzzer: `python -m tests.fuzz --cases 20000 --seed 0`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from typing import Any

from tests.fuzz.run import send_outcomes
from tests.fuzz.subjects import SUBJECTS

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run every subject in a process of its own, so that a crash is a finding too; prints the counts as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="cases over all subjects")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SUBJECTS, help="one subject")
    chosen = parser.parse_args(arguments)
    names = [chosen.only] if chosen.only else list(SUBJECTS)
    context = multiprocessing.get_context("spawn")
    report: dict[str, Any] = {"seed": chosen.seed, "subjects": {}, "findings": []}
    began = time.monotonic()
    for index, name in enumerate(names):
        count = chosen.cases // len(names) + (index < chosen.cases % len(names))
        (answer, other), start = context.Pipe(duplex=False), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            process = context.Process(target=send_outcomes, args=(name, count, chosen.seed, f"{folder}/cases", other))
            process.start()
            other.close()
            try:
                outcomes, findings = answer.recv()
            except EOFError:
                outcomes, findings = {}, [f"{name}: the process crashed"]
            process.join()
        took = round(time.monotonic() - start, 1)
        report["subjects"][name] = {"cases": count, **outcomes, "seconds": took}
        report["findings"] += findings
        print(f"{name}: {count} cases, {outcomes}, {took} s", file=sys.stderr, flush=True)
    report["cases"], report["seconds"] = chosen.cases, round(time.monotonic() - began, 1)
    print(json.dumps(report, indent=2))
    return 1 if report["findings"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
