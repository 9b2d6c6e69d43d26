"""Which engine computes with a layer: the one place that knows every kind."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from lastcli.engine.protocol import Engine, System

__all__ = ["ENGINES", "engine_of", "first_states", "unstable"]

ENGINES = {"diagonal": "lastcli.engine.diagonal", "selective": "lastcli.engine.selective.engine"}


def engine_of(system: System) -> Engine:
    """The engine of a layer's kind; what is heavy is imported by the function that is called."""
    return _engine(system.kind)


@cache
def _engine(kind: str) -> Engine:
    return cast("Engine", importlib.import_module(ENGINES[kind]))


def first_states(system: Any, count: int) -> Any:
    """The first `count` states of every index set: what is not inert in a padded layer."""
    import numpy as np

    return engine_of(system).truncate(system, np.tile(np.arange(count), (system.sets, 1))).system


def unstable(systems: Sequence[System], margin: float = 0.0) -> list[Any]:
    """Which stored states no norm can rank, one (sets, N) bool array a layer."""
    return [engine_of(system).unstable(system, margin) for system in systems]
