"""How many states each layer keeps, decided by what the whole model then says.

A ranking over all layers compares what each layer loses of its own output; whether the model minds, and what the layers
behind it make of the loss, it does not know. Here states go from one layer to another as long as the outputs of the
whole model, its read-outs refitted, come closer to the original's on the calibration inputs. No labels are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Exchanged", "Layer", "exchange_between_layers"]

# Of all that is kept, the share that goes from one layer to another at first; then half of it, and so on.
_FIRST_SHARE = 16


@dataclass(frozen=True)
class Layer:
    """What bounds a layer's number of states.

    Attributes:
        cost: stored states of one rank: one in every index set.
        least, most: ranks it may keep.
    """

    cost: int
    least: int
    most: int


@dataclass(frozen=True)
class Exchanged:
    """What came of it.

    Attributes:
        counts: ranks that each layer keeps.
        before, after: the error of the ranking's counts, and of these.
        tried: how many divisions of the states were measured.
    """

    counts: tuple[int, ...]
    before: float
    after: float
    tried: int


def exchange_between_layers(
    counts: Sequence[int],
    layers: Sequence[Layer],
    error: Callable[[tuple[int, ...]], float],
    *,
    progress: Callable[[int], None] | None = None,
) -> Exchanged:
    """Exchange states between layers until no exchange brings the model's outputs closer.

    In every round each layer is measured with a few states more and with a few less. The exchanges that should then
    help most are tried, as many as there are layers; the first that helps is kept. Where none does, fewer states are
    exchanged, down to one rank. No more states are kept than before.

    Args:
        counts: ranks that each layer keeps at first.
        layers: their bounds.
        error: of the model with so many ranks in each layer; measured once for each division.
        progress: called with 1 for every division that is measured.
    """
    known: dict[tuple[int, ...], float] = {}

    def measured(division: tuple[int, ...]) -> float:
        if division not in known:
            known[division] = error(division)
            if progress is not None:
                progress(1)
        return known[division]

    best = tuple(counts)
    before = measured(best)
    states = sum(count * layer.cost for count, layer in zip(counts, layers))
    budget = max(states // _FIRST_SHARE, max(layer.cost for layer in layers))
    while budget:
        better = _better(best, layers, budget, measured)
        if better is not None:
            best = better
        else:
            budget //= 2
    return Exchanged(best, before, measured(best), len(known))


def _better(
    best: tuple[int, ...], layers: Sequence[Layer], budget: int, measured: Callable[[tuple[int, ...]], float]
) -> tuple[int, ...] | None:
    """A division with less error than `best`, about `budget` stored states away from it; None where none was found."""
    here = measured(best)
    pairs = []
    for source, goal in ((s, g) for s in range(len(best)) for g in range(len(best)) if s != g):
        fewer = -(-budget // layers[source].cost)
        more = fewer * layers[source].cost // layers[goal].cost
        less, gained = _with(best, source, -fewer), _with(best, goal, more)
        if not more or less[source] < layers[source].least or gained[goal] > layers[goal].most:
            continue
        pairs.append((measured(less) + measured(gained) - 2 * here, _with(less, goal, more)))
    for _, division in sorted(pairs)[: len(best)]:
        if measured(division) < here:
            return division
    return None


def _with(counts: tuple[int, ...], layer: int, change: int) -> tuple[int, ...]:
    return (*counts[:layer], counts[layer] + change, *counts[layer + 1 :])
