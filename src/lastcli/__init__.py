"""Make trained state space models smaller, without retraining.

The verbs of the command line are functions here: `open`, `inspect`, `suggest`, `score`, `prune`, `sweep`, `evaluate`,
`verify`, `convert`, `bench` (see `lastcli.api`); `capture` records what arrives at the layers of any model. All are
imported when first used, so that `import lastcli` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lastcli.api import bench, capture, convert, evaluate, inspect, open, prune, score, suggest, sweep, verify
    from lastcli.errors import LastError
    from lastcli.model.checkpoint import Checkpoint
    from lastcli.plan import Method, Refit

from lastcli._version import __version__

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

_WHERE = {
    "Checkpoint": "lastcli.model.checkpoint",
    "LastError": "lastcli.errors",
    "Method": "lastcli.plan",
    "Refit": "lastcli.plan",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lastcli' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE.get(name, "lastcli.api")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
