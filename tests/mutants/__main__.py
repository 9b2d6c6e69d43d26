"""How many small changes of the code the tests notice: `python -m tests.mutants --sample 300 --seed 0`.

Measures first which tests run which lines (`pytest --cov-context=test`; pytest-cov is in the extra `fuzz`). Draws
changes of the packages' code at random, and runs for each the tests that come through its line, the quickest first,
then those that run most of its file, then some of every file of the package's own tests, until one fails. A change that
no test runs, or that every test passes, is printed. Some change nothing that can be seen (a bound that is never met
exactly, the size of a chunk); they count as not noticed.

Before that, all chosen tests run once on the code as it is: what fails there is left out, for it would notice anything.

Each change runs in processes of its own: JAX has threads, and a forked copy of a process with threads can stand still.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from tests.mutants.changes import Change, changes_of

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[2]
_TESTS = ("tests/engine", "tests/containers", "tests/contract", "tests/reduction", "tests/families", "tests/model")
_LONGEST, _MOST_TESTS, _MOST_SECONDS = 240, 25, 30.0
_OF_EACH_FILE = 4


def main(arguments: list[str] | None = None) -> int:
    """Draw, run, count; prints JSON, and one line a change to standard error."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=300, help="changes to try, half of them in each package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", nargs="+", default=["engine", "containers"], help="folders of src/lastcli")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--contexts", type=Path, help="a folder that keeps the first step for another run")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.contexts or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "coverage").exists():
            _measure(folder, chosen.packages)
        lines, seconds = _contexts(folder, chosen.packages), _durations(folder)
        report: dict[str, object] = {"seed": chosen.seed}
        for package in chosen.packages:
            files = sorted((_ROOT / "src/lastcli" / package).rglob("*.py"))
            every = [(file, change) for file in files for change in changes_of(file.read_text())]
            drawn = random.Random(chosen.seed).sample(every, min(chosen.sample // len(chosen.packages), len(every)))
            tests = [_tests_of(*item, lines, seconds) for item in drawn]
            unfit = _failing({name for names in tests for name in names}, folder, chosen.workers)
            print(f"{package}: {len(unfit)} tests fail as it is: {sorted(unfit)}", file=sys.stderr, flush=True)
            tests = [[name for name in names if name not in unfit] for names in tests]
            with ThreadPoolExecutor(chosen.workers) as pool:
                done = list(pool.map(lambda item: _noticed(*item[0], item[1], folder), zip(drawn, tests)))
            missed = [
                f"{file.relative_to(_ROOT)}:{change.line}: {change.what}"
                for (file, change), seen in zip(drawn, done)
                if not seen
            ]
            report[package] = {
                "possible": len(every),
                "tried": len(drawn),
                "noticed": sum(done),
                "share": round(sum(done) / max(len(drawn), 1), 3),
                "missed": missed,
            }
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return 0


def _measure(folder: Path, packages: list[str]) -> None:
    cover = [f"--cov=src/lastcli/{package}" for package in packages]
    environment = {**os.environ, "COVERAGE_FILE": str(folder / "coverage"), "PYTHONPATH": str(_ROOT / "src")}
    options = ["-q", "--cov-context=test", "--cov-report=", f"--junitxml={folder / 'times.xml'}"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, *cover, *_TESTS], cwd=_ROOT, env=environment, check=True, stdout=2
    )


def _contexts(folder: Path, packages: list[str]) -> dict[str, dict[int, list[str]]]:
    """Tests by file and line; under line 0 every test that runs something of the file."""
    from coverage import CoverageData

    data = CoverageData(str(folder / "coverage"))
    data.read()
    found: dict[str, dict[int, list[str]]] = {}
    wanted = [_ROOT / "src/lastcli" / package for package in packages]
    for file in data.measured_files():
        if not any(Path(file).is_relative_to(folder) for folder in wanted):
            continue
        by_line = {
            line: sorted({name.partition("|")[0] for name in names if name})
            for line, names in data.contexts_by_lineno(file).items()
        }
        by_line[0] = sorted({name for names in by_line.values() for name in names})
        found[str(Path(file).relative_to(_ROOT))] = by_line
    return found


def _durations(folder: Path) -> dict[str, float]:
    times: dict[str, float] = {}
    for case in ElementTree.parse(folder / "times.xml").getroot().iter("testcase"):
        times[_name(case)] = float(case.get("time", 0))
    return times


def _name(case: ElementTree.Element) -> str:
    """What pytest calls a test of a report; tests in classes are not found so, and not needed."""
    return f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"


def _tests_of(
    file: Path, change: Change, lines: dict[str, dict[int, list[str]]], seconds: dict[str, float]
) -> list[str]:
    """Tests that come through the changed line, or through the file where none is known to.

    First the quickest, then those that run most of the file: of either at most 25, and after the first no more than
    take half a minute together. Last the quickest four of every file of tests of the same package, for half a minute.
    """
    by_line = lines.get(str(file.relative_to(_ROOT)), {})
    names = by_line.get(change.line) or by_line.get(0, [])
    of_file = Counter(name for line, others in by_line.items() if line for name in others)
    quickest = sorted(names, key=lambda name: seconds.get(name, 1.0))
    closest = sorted(quickest, key=lambda name: -of_file[name])
    first = _affordable(quickest, seconds, _MOST_TESTS) + _affordable(closest, seconds, _MOST_TESTS)
    package = file.relative_to(_ROOT / "src/lastcli").parts[0]
    own = [name for name in quickest if name.startswith(f"tests/{package}/") and name not in first]
    return list(dict.fromkeys(first + _affordable(_of_each_file(own), seconds, len(own))))


def _of_each_file(names: list[str]) -> list[str]:
    """The first few of every file of tests: those first that are first in their file."""
    places: dict[str, int] = {}
    ranked = []
    for name in names:
        file = name.partition("::")[0]
        places[file] = places.get(file, 0) + 1
        ranked.append((places[file], name))
    return [name for place, name in sorted(ranked, key=lambda pair: pair[0]) if place <= _OF_EACH_FILE]


def _affordable(names: list[str], seconds: dict[str, float], most: int) -> list[str]:
    together = itertools.accumulate(seconds.get(name, 1.0) for name in names)
    within = sum(1 for total in together if total <= _MOST_SECONDS)
    return names[: min(max(within, 1), most)]


def _failing(tests: set[str], scratch: Path, workers: int) -> set[str]:
    """Those of the tests that fail on the code as it is.

    Raises:
        RuntimeError: they could not be run.
    """
    report = scratch / "control.xml"
    done = _pytest(_ROOT / "src", sorted(tests), scratch, f"--junitxml={report}", "-n", str(workers), limit=None)
    if done not in (0, 1):
        raise RuntimeError(f"pytest ends with exit code {done} on the code as it is.")
    cases = ElementTree.parse(report).getroot().iter("testcase")
    ran = {_name(case): case.find("failure") is not None or case.find("error") is not None for case in cases}
    return {name for name in tests if ran.get(name, True)}


def _noticed(file: Path, change: Change, tests: list[str], scratch: Path) -> bool:
    began = time.monotonic()
    seen = bool(tests) and _fails(file, change, tests, scratch)
    where = f"{file.relative_to(_ROOT)}:{change.line}: {change.what[:100]}"
    took = f"{len(tests)} tests, {time.monotonic() - began:.0f} s"
    print(f"{'noticed' if seen else 'MISSED '} {where} ({took})", file=sys.stderr, flush=True)
    return seen


def _fails(file: Path, change: Change, tests: list[str], scratch: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=scratch) as copy:
        source = Path(copy) / "src"
        shutil.copytree(_ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        (Path(copy) / file.relative_to(_ROOT)).write_text(change.source)
        try:
            return _pytest(source, tests, scratch, "-x", limit=_LONGEST) != 0
        except subprocess.TimeoutExpired:
            return True


def _pytest(source: Path, tests: list[str], scratch: Path, *options: str, limit: float | None) -> int:
    """The exit code of pytest over some tests, with the package in `source`; compiled programs are shared."""
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{_ROOT}", "TMPDIR": temporary}
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-o", f"cache_dir={scratch / 'cache'}"]
        done = subprocess.run(
            [*command, *options, *tests],
            cwd=_ROOT,
            env=environment,
            timeout=limit,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
