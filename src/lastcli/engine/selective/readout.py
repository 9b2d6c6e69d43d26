"""The read-out of S6 as a regression, its elimination and its refit; see `moments` for the features.

D is free: what it can absorb is taken out of the problem beforehand, as `engine.regression` does with a dense one. The
elimination of blocks and the exchange of kept ones are those of every other layer (`engine.elimination`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg

from lastcli.engine.elimination import Elimination, eliminate_blocks
from lastcli.engine.exchange import exchange_blocks
from lastcli.engine.readout import RIDGE, one_observation
from lastcli.engine.regression import Regression
from lastcli.engine.selective.moments import SelectiveMoments, maps_of
from lastcli.engine.selective.system import S6System

__all__ = ["eliminate", "exchange", "fold"]

Array = Any


def eliminate(system: S6System, moments: SelectiveMoments) -> Elimination:
    """Backward elimination of the states of all channels together."""
    scaled = _Problem(system, moments)
    return eliminate_blocks(scaled.regression, scaled.maps, 1, np.array([moments.energy]))


def exchange(system: S6System, kept: np.ndarray, moments: SelectiveMoments, pinned: np.ndarray | None) -> np.ndarray:
    """Kept states (1, K) after the swaps that lower the refitted error."""
    scaled = _Problem(system, moments)
    return exchange_blocks(scaled.regression, scaled.maps, kept, pinned)


def fold(system: S6System, kept: np.ndarray, moments: SelectiveMoments) -> S6System:
    """The kept states (1, K) with the read-out T and the D that fit the target best, T folded into what makes C."""
    return _Problem(system, moments).fold(system, kept[0])


class _Problem:
    """The least squares problem over features of unit mean variance, each map by itself."""

    def __init__(self, system: S6System, moments: SelectiveMoments):
        self.rows = np.asarray(maps_of(system), np.float64)
        self.maps, N = len(self.rows), system.states
        ridge = RIDGE + float(one_observation(moments.weight, 1))
        variance = np.diagonal(moments.gram).reshape(N, self.maps).mean(axis=0)
        self.scale = np.tile(np.where(variance > 0, np.sqrt(np.where(variance > 0, variance, 1)), 1), N)
        gram = moments.gram / np.outer(self.scale, self.scale) + ridge * np.eye(N * self.maps)
        cross, own = moments.cross / self.scale, moments.direct_cross / self.scale
        power = np.diagonal(moments.direct)
        direct = moments.direct + ridge * np.diag(np.where(power > 0, power, 1))
        solved = linalg.solve(direct, np.column_stack([own, moments.direct_target]), assume_a="pos")
        self.absorbs, self.absorbed = solved[:, :-1], solved[:, -1]
        M, X = gram - own.T @ self.absorbs, cross - moments.direct_target @ self.absorbs
        energy = moments.energy - moments.direct_target @ self.absorbed
        self.regression = Regression(M[None], X[None, None], np.array([energy]), np.asarray(ridge))

    def fold(self, system: S6System, kept: np.ndarray) -> S6System:
        index = (kept[:, None] * self.maps + np.arange(self.maps)).reshape(-1)
        M, X = self.regression.M[0][np.ix_(index, index)], self.regression.X[0, 0, index]
        T = linalg.solve(M, X, assume_a="pos")
        D = self.absorbed - self.absorbs[:, index] @ T
        T = (T / self.scale[index]).reshape(len(kept), self.maps)
        return system.replace(A=system.A[:, kept], to_B=system.to_B[kept], to_C=T @ self.rows, D=D)


def by_contribution(moments: SelectiveMoments) -> Elimination:
    """States in the order of what they contribute, with the sums of that as errors: nothing is re-solved."""
    from lastcli.engine.elimination import curve

    energy = np.asarray(moments.contribution, np.float64)
    order = np.argsort(energy, axis=1, kind="stable")
    errors = np.cumsum(np.take_along_axis(energy, order, axis=1), axis=1)
    return curve(order, errors, errors, energy.sum(axis=1))
