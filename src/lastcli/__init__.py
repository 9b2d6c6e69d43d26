"""Make trained state space models smaller, without retraining.

The verbs of the command line are functions here: `open`, `inspect`, `suggest`, `score`, `prune`, `sweep`, `evaluate`,
`verify`, `convert`, `bench` (see `lastcli.api`); `capture` records what arrives at the layers of any model. All are
imported when first used, so that `import lastcli` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lastcli.api import bench, capture, convert, evaluate, inspect, open, prune, score, suggest, sweep, verify
    from lastcli.errors import LastError
    from lastcli.model.checkpoint import Checkpoint
    from lastcli.plan import Method, Refit

from lastcli._version import __version__
from lastcli.lazily import named

__all__ = [
    "Checkpoint",
    "LastError",
    "Method",
    "Refit",
    "__version__",
    "bench",
    "capture",
    "convert",
    "evaluate",
    "inspect",
    "open",
    "prune",
    "score",
    "suggest",
    "sweep",
    "verify",
]

__getattr__ = named(
    __name__,
    {
        "api": (
            *("bench", "capture", "convert", "evaluate", "inspect", "open", "prune", "score", "suggest", "sweep"),
            "verify",
        ),
        "errors": ("LastError",),
        "model.checkpoint": ("Checkpoint",),
        "plan": ("Method", "Refit"),
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
