"""What models weigh and what a step of a sequence costs them, before and after a reduction."""

from __future__ import annotations

from collections.abc import Sequence

from lastcli.engine.costs import step_cost
from lastcli.engine.protocol import System
from lastcli.engine.system import DiagonalSystem
from lastcli.model.checkpoint import Checkpoint
from lastcli.results import Costs
from lastcli.verbs.shared.rebuilding import Rebuilt, as_checkpoint
from lastcli.verbs.shared.sizes import carried_bytes

__all__ = ["full_costs", "reduced_costs"]


def full_costs(checkpoint: Checkpoint) -> Costs:
    """Of the model as it is in the file."""
    return _costs(checkpoint, checkpoint.systems, carried_bytes(checkpoint))


def reduced_costs(checkpoint: Checkpoint, rebuilt: Rebuilt, systems: Sequence[System]) -> Costs:
    """Of a reduced model: its tensors, and what the input's container adds to its own."""
    size = rebuilt.nbytes + max(carried_bytes(checkpoint) - checkpoint.reader.nbytes, 0)
    return _costs(as_checkpoint(checkpoint, rebuilt), systems, size)


def _costs(checkpoint: Checkpoint, systems: Sequence[System], size: int) -> Costs:
    whole = checkpoint.decoding
    if whole is not None:
        return Costs(bytes=size, state_bytes=whole.state_bytes, multiply_adds=whole.multiply_adds, whole=True)
    layers = [system for system in systems if isinstance(system, DiagonalSystem) and not system.bidirectional]
    if len(layers) < len(systems):
        return Costs(bytes=size)
    found = [step_cost(layer) for layer in layers]
    numbers, products = (sum(cost[i] for cost in found) for i in (0, 1))
    return Costs(bytes=size, state_bytes=4 * numbers, multiply_adds=products)
