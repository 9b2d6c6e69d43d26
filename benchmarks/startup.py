"""How long the small commands take from the shell, beside the bare import of JAX.

    python -m benchmarks.startup [--repeats 9]

Every command is a process of its own, all by turns; medians. The modules are compiled to bytecode by a first run, as an
installed package is. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from benchmarks.commands import run

__all__ = ["measured"]


def measured(repeats: int) -> list[str]:
    """The lines of the table."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        safetensors, torch = Path(folder) / "model.safetensors", Path(folder) / "model.pth"
        for target in (safetensors, torch):
            run("-m", "lastcli", "convert", "bundled", str(target), "--quiet")
        commands = {
            "python -c pass": ("-c", "pass"),
            "python -c 'import numpy'": ("-c", "import numpy"),
            "python -c 'import jax'": ("-c", "import jax"),
            "last --help": ("-m", "lastcli", "--help"),
            "last prune --help": ("-m", "lastcli", "prune", "--help"),
            "last inspect model.safetensors": ("-m", "lastcli", "inspect", str(safetensors)),
            "last inspect model.pth": ("-m", "lastcli", "inspect", str(torch)),
            "last score bundled": ("-m", "lastcli", "score", "bundled"),
        }
        for command in commands.values():
            run(*command)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeats):
            for name, command in commands.items():
                seconds[name].append(run(*command).seconds)
    lines = ["| command | seconds |", "|---|--:|"]
    return lines + [f"| `{name}` | {statistics.median(found):.2f} |" for name, found in seconds.items()]


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    print("\n".join(measured(parser.parse_args().repeats)))
    from benchmarks.machine import machine

    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
