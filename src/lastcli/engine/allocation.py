"""How the states of different layers compete, and which of them stay.

An allocation turns energies into scores that are comparable over layers. With energies e_(1) ≥ e_(2) ≥ … in a layer:

- ``adaptive``: e_(i) / Σ_{j≤i} e_(j), the layer-wise energy normalisation of LAST (arXiv 2411.02824) and the rule of
  LAMP for weights; the best state of a layer scores 1
- ``global``: e_(i) as it is
- ``uniform``: by rank alone, so that every layer gives up the same share

A multi-SISO layer has one index set a channel. Its tensors stay rectangular only if every set keeps the same count, so
the layer competes rank by rank: rank j stands for the j-th best state of every set, has the sum of their energies (for
``global`` their mean, what a stored state brings), and costs one state a set. Each set keeps its own best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal, InvalidOperation

import numpy as np

from lastcli.errors import UsageError

__all__ = ["ALLOCATIONS", "Allocation", "scores", "select", "states_to_keep"]


def _adaptive(ranked: np.ndarray) -> np.ndarray:
    """(N,) scores from the (sets, N) energies of a layer, each row descending; an infinite rank outscores all."""
    energy = ranked.sum(axis=0)
    finite = np.isfinite(energy)
    known = np.where(finite, energy, 0.0)
    known = known / max(known.max(initial=0.0), np.finfo(float).tiny)  # a sum of squares may leave the range
    total = np.cumsum(known)
    score = np.divide(known, total, out=np.zeros_like(known), where=total > 0)
    return np.where(finite, score, np.inf)


def _global(ranked: np.ndarray) -> np.ndarray:
    return ranked.mean(axis=0)


def _uniform(ranked: np.ndarray) -> np.ndarray:
    N = ranked.shape[1]
    return (N - np.arange(N)) / max(N, 1)


@dataclass(frozen=True)
class Allocation:
    """A rule that makes the energies of different layers comparable.

    Attributes:
        name: of the rule.
        help: what it does, one line.
        source: the paper it comes from; empty where there is none.
        function: (sets, N) energies of a layer, each row descending → the score of each rank (N,).
    """

    name: str
    help: str
    source: str
    function: Callable[[np.ndarray], np.ndarray]


ALLOCATIONS: dict[str, Allocation] = {
    allocation.name: allocation
    for allocation in (
        Allocation(
            "adaptive", "energy over the energy of all better states of the layer", "arXiv 2411.02824", _adaptive
        ),
        Allocation("global", "energies of all layers as they are", "", _global),
        Allocation("uniform", "by rank alone: the same share of every layer", "", _uniform),
    )
}


def scores(energies: Sequence[np.ndarray], allocation: str) -> list[np.ndarray]:
    """Score of every state, comparable over all layers.

    Args:
        energies: (sets, N) non-negative energies a layer; infinite for states that have no finite norm.
        allocation: a name in `ALLOCATIONS`.

    Returns:
        (sets, N) a layer. The states of one rank of a layer share a score.

    Raises:
        UsageError: there is no such allocation.
    """
    if allocation not in ALLOCATIONS:
        raise UsageError(f"There is no allocation {allocation!r}; known allocations: {', '.join(ALLOCATIONS)}.")
    found = []
    for energy in energies:
        order = np.argsort(-energy, axis=1, kind="stable")
        by_rank = ALLOCATIONS[allocation].function(np.take_along_axis(energy, order, axis=1))
        score = np.empty(energy.shape)
        np.put_along_axis(score, order, np.broadcast_to(by_rank, energy.shape), axis=1)
        found.append(score)
    return found


def states_to_keep(total: int, ratio: Decimal | float | str) -> int:
    """max(floor(total·(1 - ratio)), 1), the floor taken in exact decimal arithmetic: 1 - 0.55 is 0.45.

    Raises:
        UsageError: the ratio is not a number from 0 to 1.
    """
    try:
        exact = Decimal(str(ratio))
    except InvalidOperation:
        raise UsageError(f"The ratio {ratio!r} is not a number; give one from 0 to 1.") from None
    if not exact.is_finite() or not 0 <= exact <= 1:
        raise UsageError(f"The ratio {ratio} lies outside 0 to 1.")
    return max(int((total * (1 - exact)).to_integral_value(ROUND_FLOOR)), 1)


def select(
    energies: Sequence[np.ndarray],
    allocation: str | Sequence[np.ndarray] = "adaptive",
    *,
    ratio: Decimal | float | str | None = None,
    states: int | None = None,
    min_states: int = 1,
    layout: str = "ragged",
    multiple: int = 1,
    ties: str = "exact",
    pinned: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """The states that stay: the best K over all layers.

    Floors come first: `min_states` of every index set, and the pinned states. Then the ranks of all layers are taken
    in order of their scores as long as they fit into K; ties go to the earlier layer, then to the higher energy, then
    to the lower index. More than K states stay only where the floors alone, or kept ties, are more.

    Args:
        energies: (sets, N) a layer, from a criterion.
        allocation: a name in `ALLOCATIONS`, or scores (sets, N) a layer.
        ratio: share of all stored states to remove; K = `states_to_keep`.
        states: K itself, instead of a ratio.
        min_states: states that every index set keeps at least (all of them where it has fewer).
        layout: "uniform" keeps the same count in every layer, "proportional" the ratio of the layers' sizes; "ragged"
            and "padded" differ only in how they are stored.
        multiple: every index set keeps a multiple of so many states, rounded down (one multiple at least, and never
            more than it has).
        ties: "exact" keeps K; "reference" keeps every state that scores as much as the K-th, as the published code.
        pinned: (sets, N) bool a layer, states that stay whatever they score.

    Returns:
        (sets, k) ascending indices a layer.

    Raises:
        UsageError: not exactly one of ratio and states, or a value out of range.
    """
    orders, by_rank = _ranking(energies, allocation, pinned)
    sizes = [order.shape for order in orders]
    total = sum(sets * N for sets, N in sizes)
    stay = _how_many(total, ratio, states)
    floors = [
        min(N, max(min_states, 0 if pinned is None else int(pinned[layer].sum(axis=1).max(initial=0))))
        for layer, (_, N) in enumerate(sizes)
    ]
    if layout == "uniform":
        counts = _same_count(sizes, floors, stay)
    elif layout == "proportional":
        counts = _same_share(sizes, floors, stay)
    elif layout in ("ragged", "padded"):
        counts = _best_ranks(by_rank, sizes, floors, stay, keep_ties=_keeps_ties(ties))
    else:
        raise UsageError(f"There is no layout {layout!r}; known layouts: ragged, padded, uniform, proportional.")
    counts = [_whole(k, N, floor, multiple) for k, (_, N), floor in zip(counts, sizes, floors)]
    return [np.sort(order[:, :k], axis=1) for order, k in zip(orders, counts)]


def _whole(count: int, states: int, floor: int, multiple: int) -> int:
    """A multiple, down from `count` where the floor allows it, else up; all states where there are too few for one."""
    if multiple == 1:
        return count
    down = count - count % multiple
    return min(down if down >= max(floor, 1) else -(-max(floor, count) // multiple) * multiple, states)


def _ranking(
    energies: Sequence[np.ndarray], allocation: str | Sequence[np.ndarray], pinned: Sequence[np.ndarray] | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Order of the states in every set (sets, N), best first, and the score of each rank (N,), a layer each."""
    score = scores(energies, allocation) if isinstance(allocation, str) else list(allocation)
    orders, by_rank = [], []
    for layer, (energy, value) in enumerate(zip(energies, score, strict=True)):
        first = np.zeros(energy.shape, bool) if pinned is None else np.asarray(pinned[layer], bool)
        index = np.broadcast_to(np.arange(energy.shape[1]), energy.shape)
        order = np.lexsort((index, -energy, -value, ~first), axis=1)
        orders.append(order)
        by_rank.append(np.take_along_axis(value, order, axis=1).mean(axis=0))
    return orders, by_rank


def _how_many(total: int, ratio: Decimal | float | str | None, states: int | None) -> int:
    if (ratio is None) == (states is None):
        raise UsageError("Give either a pruning ratio or a number of states to keep.")
    if ratio is not None:
        return states_to_keep(total, ratio)
    states = int(states or 0)
    if not 0 <= states <= total:
        raise UsageError(f"The model has {total} states; {states} of them cannot be kept.")
    return max(states, 1)


def _keeps_ties(ties: str) -> bool:
    if ties not in ("exact", "reference"):
        raise UsageError(f"There is no tie rule {ties!r}; known rules: exact, reference.")
    return ties == "reference"


def _same_count(sizes: Sequence[tuple[int, int]], floors: Sequence[int], stay: int) -> list[int]:
    """The largest common count that fits; a layer with fewer states keeps all of them."""
    largest = max((N for _, N in sizes), default=0)
    fits = [k for k in range(largest + 1) if sum(sets * min(k, N) for sets, N in sizes) <= stay]
    common = max(fits[-1], *floors)
    return [min(common, N) for _, N in sizes]


def _same_share(sizes: Sequence[tuple[int, int]], floors: Sequence[int], stay: int) -> list[int]:
    """The largest counts that fit and are to each other as the sizes are: layers of 16 and 32 keep n and 2n."""
    steps = math.gcd(*(N for _, N in sizes))
    parts = [N // max(steps, 1) for _, N in sizes]
    cost = sum(sets * part for (sets, _), part in zip(sizes, parts))
    least = max((-(-floor // part) for floor, part in zip(floors, parts) if part), default=0)
    share = min(max(stay // cost if cost else 0, least, 1), steps)
    return [share * part for part in parts]


def _best_ranks(
    by_rank: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]], floors: Sequence[int], stay: int, keep_ties: bool
) -> list[int]:
    """How many ranks of each layer stay."""
    counts = list(floors)
    left = stay - sum(k * sets for k, (sets, _) in zip(counts, sizes))
    layers = np.concatenate([np.full(N - k, layer) for layer, (k, (_, N)) in enumerate(zip(counts, sizes))])
    values = np.concatenate([value[k:] for k, value in zip(counts, by_rank)])
    order = np.lexsort((layers, -values))  # stable: ranks of one layer stay in order
    threshold = np.inf
    for place in order:
        sets = sizes[layers[place]][0]
        if sets <= left:
            counts[layers[place]] += 1
            left -= sets
            threshold = values[place]
        elif keep_ties and values[place] == threshold:
            counts[layers[place]] += 1
    return counts
