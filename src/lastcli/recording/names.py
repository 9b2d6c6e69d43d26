"""One layer's name in the spellings of all containers."""

from __future__ import annotations

__all__ = ["plain"]


def plain(name: str) -> str:
    """The name without what a container adds to it: `params/a/b[0]`, `.a.b[0]` and `a.b.0` are the same."""
    return name.replace("/", ".").replace("[", ".").replace("]", "").strip(".").removeprefix("params.")
