"""Runs killed all over their calls, and what stood there then: `python -m tests.fuzz.kills --kills 200`."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.killing import kill
from tests.fuzz.outputs import OUTPUTS

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Kill runs of every container, spread evenly over their calls; prints and returns the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many")
    chosen = parser.parse_args(arguments)
    logging.getLogger("lastcli").setLevel(logging.ERROR)
    began = time.monotonic()
    plans = [(kind, old, exchanged) for kind in OUTPUTS for old, exchanged in ((True, True), (False, True))]
    plans += [(kind, True, False) for kind in ("shards", "orbax")]
    outcomes: Counter[str] = Counter()
    left = chosen.kills
    for index, (kind, old, exchanged) in enumerate(plans):
        share = left // (len(plans) - index)
        with tempfile.TemporaryDirectory() as folder:
            total = kill(kind, -1, Path(folder), old=old, exchanged=exchanged)[0]
        for step in range(share):
            number = step * (total - 1) // max(share - 1, 1)
            with tempfile.TemporaryDirectory() as folder:
                made, stands = kill(kind, number, Path(folder), old=old, exchanged=exchanged)
            if made:
                raise AssertionError(f"{kind}: the run was not killed at call {number} of {total}")
            outcomes[f"{kind}: {stands}"] += 1
        left -= share
    report = {"kills": sum(outcomes.values()), "found": dict(outcomes), "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(report, indent=2))
    return report


if __name__ == "__main__":
    main()
