"""The output in docs/tour.md: run the commands of the page from top to bottom, put what each prints below it.

python -m benchmarks.tour
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["filled"]

PAGE = Path(__file__).parent.parent / "docs" / "tour.md"
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", flags=re.MULTILINE | re.DOTALL)


def filled(page: str, printed: Callable[[list[str]], str]) -> str:
    """The page with every console block written anew: each command, then `printed(arguments)`."""

    def block(found: re.Match[str]) -> str:
        lines = []
        for command in (line for line in found[0].splitlines() if line.startswith("$ last ")):
            lines += [command, printed(shlex.split(command)[2:]).strip("\n")]
        return "\n".join(line.rstrip() for line in "\n".join(lines).splitlines()) + "\n"

    return BLOCK.sub(block, page)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:

        def printed(arguments: list[str]) -> str:
            command = [sys.executable, "-m", "lastcli", *arguments]
            return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout

        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), printed), encoding="utf-8")


if __name__ == "__main__":
    main()
