"""What `last prune --method best` finds on the bundled model, measured on a split that chose nothing.

    python -m benchmarks.best [--max-drop 0.01]

Chosen on bundled:validation, calibrated on bundled:calibration, measured on bundled:test; then the recipe that it wrote
is run, and has to give the same bytes. Prints Markdown: what was tried, and a sentence about what was found.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import lastcli
from benchmarks.machine import machine
from lastcli.results import PruneResult

__all__ = ["found"]


def found(max_drop: float) -> list[str]:
    """Lines of Markdown.

    Raises:
        SystemExit: the recipe gives another file.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, again = Path(folder) / "best.safetensors", Path(folder) / "again.safetensors"
        begin = time.perf_counter()
        result = lastcli.prune(
            "bundled",
            out,
            method="best",
            max_drop=max_drop,
            data="bundled:validation",
            calibration="bundled:calibration",
        )
        seconds = time.perf_counter() - begin
        before, after = (lastcli.evaluate(model, data="bundled:test") for model in ("bundled", out))
        assert result.recipe is not None
        lastcli.prune(recipe=result.recipe, out=again)
        if again.read_bytes() != out.read_bytes():
            raise SystemExit(f"{result.recipe} does not repeat {out.name}")
    lost = 100 * (before.value - after.value)
    return [
        *_tries(result),
        "",
        f"{result.states_before} → {result.states_after} states ({result.ratio:.1%} removed) by {result.method} with "
        f"{result.refit}; on {after.n} examples of bundled:test {before.value:.1%} → {after.value:.1%}, {lost:.1f} "
        f"points lost. {seconds / 60:.1f} minutes. The recipe gives the same bytes again.",
        "",
        f"`python -m benchmarks.best`; {machine()}.",
    ]


def _tries(result: PruneResult) -> list[str]:
    assert result.search is not None
    lines = ["| method | refit | stages | removed | seconds | |", "|---|---|--:|--:|--:|---|"]
    for one in result.search.attempts:
        removed = "–" if one.ratio is None else f"{one.ratio:.1%}"
        lines.append(
            f"| {one.method} | {one.refit} | {one.steps} | {removed} | {one.seconds:.0f} | {one.outcome} |",
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-drop", type=float, default=0.01, help="share of the accuracy that may be lost")
    print("\n".join(found(parser.parse_args().max_drop)))


if __name__ == "__main__":
    main()
