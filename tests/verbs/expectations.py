"""What the commands print about the bundled model, as committed documents; `python -m tests.verbs.expectations` anew.

Written anew only when a command is meant to print something else: the documents are what scripts out there rely on.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("expected")
COMMANDS = {
    "inspect": ["inspect", "bundled"],
    "score-last": ["score", "bundled", "--method", "last"],
    "score-aire": ["score", "bundled", "--method", "aire"],
    "score-lamp": ["score", "bundled", "--method", "lamp"],
    "score-random": ["score", "bundled", "--method", "random"],
    "score-obs": ["score", "bundled", "--method", "obs"],
    "score-reference": ["score", "bundled", "--compat", "reference"],
    "prune-last": ["prune", "bundled", "--ratio", "0.33", "--dry-run"],
    "prune-aire-h2": ["prune", "bundled", "--method", "aire", "--refit", "h2", "--ratio", "0.5", "--dry-run"],
    "prune-uniform": ["prune", "bundled", "--method", "uniform-hinf", "--states", "60", "--dry-run"],
    "prune-obs": ["prune", "bundled", "--method", "obs", "--refit", "sequential", "--ratio", "0.7", "--dry-run"],
    "prune-balanced": ["prune", "bundled", "--method", "balanced", "--ratio", "0.5", "--dry-run"],
    "sweep": ["sweep", "--methods", "last,aire,obs,balanced", "--refits", "none,h2", "--ratios", "0,0.3,0.6"],
    "sweep-calibrated": [
        "sweep", "bundled", "--methods", "last,obs", "--refits", "calibrated,sequential", "--ratios", "0.6",
        "--max-drop", "0.01",
    ],
    "eval": ["eval", "bundled"],
}  # fmt: skip


def document(arguments: list[str]) -> Any:
    """The JSON document of a command, run in this process."""
    from lastcli.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        main([*arguments, "--json"])
    return json.loads(out.getvalue())


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every leaf of a document with its path."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, (*path, key))
        if not value:
            yield path, value
    else:
        yield path, value


def main() -> None:
    """Write every document."""
    FOLDER.mkdir(exist_ok=True)
    for name, arguments in COMMANDS.items():
        text = json.dumps(document(arguments), indent=0, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
