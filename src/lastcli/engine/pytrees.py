"""Registers `DiagonalSystem` as a JAX pytree.

Kept apart from `system.py` so that a system can be built and looked at (`last inspect`) without importing JAX. Every
engine module that traces a system gets the registration through `precision` or `simulate`.
"""

from __future__ import annotations

import jax

from lastcli.engine.system import DiagonalSystem

__all__ = ["DiagonalSystem"]

jax.tree_util.register_dataclass(
    DiagonalSystem,
    data_fields=["poles", "B", "C", "D"],
    meta_fields=[
        "pairing",
        "delay",
        "modes",
        "sets",
        "feedthrough",
        "multi",
        "shared_readout",
        "fixed_poles",
        "real_readout",
    ],
)
