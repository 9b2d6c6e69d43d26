"""What the project says of itself: version, accepted Pythons, files of the wheel."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT = 2_000_000  # bytes of a wheel
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def version() -> str:
    """As `_version.py` states it."""
    text = (ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    assert found
    return found[1]


def lowest() -> tuple[int, int]:
    """The lowest Python that `requires-python` accepts."""
    found = re.fullmatch(r">=(\d+)\.(\d+)", PYPROJECT["project"]["requires-python"])
    assert found
    return int(found[1]), int(found[2])


def accepts(python: tuple[int, int]) -> bool:
    """Whether a Python is in the range."""
    return python >= lowest()


def packed() -> list[Path]:
    """Every file that goes into the wheel, caches of Python apart."""
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = [ROOT / name for name in (*wheel["packages"], *wheel["force-include"])]
    return [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
