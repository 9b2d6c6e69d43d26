"""Exchange of kept states: what backward elimination, which never takes a state back, leaves on the table.

A kept and a dropped state change places where that lowers the refitted error, the best pair first, until no pair does
(the exchange step of subset selection in regression: Miller, Subset Selection in Regression, 2002, section 3.7).
"""

from __future__ import annotations

import numpy as np

from lastcli.engine.elimination import eliminate
from lastcli.engine.embedding import kept_indices
from lastcli.engine.features import block_size
from lastcli.engine.moments import Moments
from lastcli.engine.regression import Regression, regression_of
from lastcli.engine.swaps import Fit, Offers
from lastcli.engine.system import DiagonalSystem, sum_by_set

__all__ = ["exchange", "exchange_blocks", "select_states"]

# A swap must lower the error by this share: smaller gains do not survive the next batch of data.
_GAIN = 1e-3
# Only the cheapest kept states are offered for a swap; one that carries much is never worth it.
_OFFERED = 16
_MOST_SWAPS = 64
# A fit that was changed swap by swap is solved anew where its error is not what was foretold, to a part of the gain,
_SURE = 1e-2
# and after so many swaps in any case.
_AFRESH = 16


def select_states(
    system: DiagonalSystem, moments: Moments, count: int, *, pinned: np.ndarray | None = None
) -> np.ndarray:
    """The `count` states (sets, count) of every set to keep: backward elimination, then exchange.

    Args:
        system: the layer, NumPy float64.
        moments: `white_noise_moments(system)`, or of real inputs.
        count: states to keep in each set.
        pinned: (sets, N) bool, states that are kept in any case.
    """
    order = eliminate(system, moments, pinned=pinned).order
    kept = np.sort(order[:, system.states - count :], axis=1)
    return exchange(system, kept, moments, pinned=pinned)


def exchange(
    system: DiagonalSystem, kept: np.ndarray, moments: Moments, *, pinned: np.ndarray | None = None
) -> np.ndarray:
    """Kept states (sets, K) after all swaps that lower the refitted error; never worse than before.

    Args:
        system: the layer, NumPy float64.
        kept: (sets, K), where to start.
        moments: as for `eliminate`.
        pinned: (sets, N) bool, states that are never given away.
    """
    kept = np.sort(np.asarray(kept), axis=1)
    if kept.shape[1] == 0 or system.states == kept.shape[1]:
        return kept
    return exchange_blocks(regression_of(system, moments), block_size(system), kept, pinned)


def exchange_blocks(problem: Regression, size: int, kept: np.ndarray, pinned: np.ndarray | None = None) -> np.ndarray:
    """The same for blocks of `size` features; see `elimination.eliminate_blocks`."""
    sets, K = kept.shape
    kept = np.sort(np.asarray(kept), axis=1)
    states = problem.M.shape[1] // size
    if K in (0, states):
        return kept
    held = np.zeros((sets, states), dtype=bool) if pinned is None else np.asarray(pinned, dtype=bool)
    rows, member = np.arange(sets), np.arange(len(problem.M)) % sets
    fit = Fit.of(problem, kept_indices(kept, len(problem.M), size), size)
    for done in range(1, min(_MOST_SWAPS, 4 * K) + 1):
        error = sum_by_set(problem.energy - fit.explained, sets)
        out, new, change = _best_swaps(fit, kept, held, sets, states)
        worth = change < -_GAIN * np.maximum(error, 0)
        if not worth.any():
            break
        groups = np.flatnonzero(worth[member])
        before, kept = kept, kept.copy()
        kept[rows[worth], out[worth]] = new[worth]
        fit = fit.exchanged(problem, before[member], groups, out[member[groups]], new[member[groups]])
        found = sum_by_set(problem.energy - fit.explained, sets)
        wrong = np.abs(found - error - np.where(worth, change, 0)) > _SURE * np.abs(change)
        if done % _AFRESH == 0 or (wrong & worth).any():
            fit = Fit.of(problem, kept_indices(kept, len(problem.M), size), size)
    return np.sort(kept, axis=1)


def _best_swaps(
    fit: Fit, kept: np.ndarray, held: np.ndarray, sets: int, states: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per set: the position given away, the state that comes in, and the change of the error (0 where none helps)."""
    rows = np.arange(sets)
    cost = sum_by_set(fit.removals(), sets)
    cost = np.where(np.take_along_axis(held, kept, axis=1), np.inf, cost)
    inside = np.zeros((sets, states), dtype=bool)
    np.put_along_axis(inside, kept, True, axis=1)
    member = np.arange(len(fit.A)) % sets
    dropped = np.nonzero(~inside)[1].reshape(sets, states - kept.shape[1])
    offers = Offers.of(fit, dropped[member])
    out, new, best = np.zeros(sets, int), np.zeros(sets, int), np.zeros(sets)
    for position in np.argsort(cost, axis=1)[:, :_OFFERED].T:
        change = sum_by_set(offers.changes(position[member]), sets)
        blocked = ~np.isfinite(change) | ~np.isfinite(cost[rows, position])[:, None]
        change = np.where(blocked, np.inf, change)
        state = change.argmin(axis=1)
        better = change[rows, state] < best
        out, new = np.where(better, position, out), np.where(better, dropped[rows, state], new)
        best = np.where(better, change[rows, state], best)
    return out, new, best
