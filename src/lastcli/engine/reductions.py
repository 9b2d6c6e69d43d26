"""Reductions that keep or are given their poles: plain truncation, and the read-out refit.

The refit is what the kept states must say once the others are gone.

With features f = [Re x; Im x] and read-out W, a layer is y = W f + D u, and for kept features K the best read-out
solves a linear least squares problem in the second moments of f, u and y::

    W'_K = E[y f_Kᵀ] (E[f_K f_Kᵀ] + ε)⁻¹        ε relative to the variance of every feature

D may take over the direct part of what was removed as far as the checkpoint's format can hold it (Forgione et al.,
arXiv 2403.14833, saw the same for singular perturbation).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lastcli.engine.embedding import truncate
from lastcli.engine.features import feature_indices, readout_of, readout_to_C
from lastcli.engine.moments import Moments
from lastcli.engine.readout import direct_part, excluding, row_errors, solve_readout
from lastcli.engine.system import DiagonalSystem, Reduction, feedthrough_of
from lastcli.engine.white_noise import joint_moments, without_unstable

__all__ = ["refit", "refit_moved", "residual", "truncate"]

Array = Any

# A row leaves the plain read-out (or its old D) only for a gain that is more than rounding.
_GAIN = 1e-13


def refit(system: DiagonalSystem, kept: Array, moments: Moments) -> Reduction:
    """The kept states with the read-out (and feedthrough) that fits the target of `moments` best.

    Never worse than plain truncation in the metric of `moments`: each output takes whichever of the plain read-out,
    the refitted one, and the refitted one with a new D leaves the smallest error.

    Args:
        system: the original layer, NumPy float64.
        kept: (sets, K) indices of the kept states.
        moments: of this layer with all its states: `white_noise_moments` for the H2-optimal read-out,
            `accumulate` for the best one on real inputs.

    Returns:
        A `Reduction` with changed = "readout".

    Raises:
        UnsupportedModelError: a diagonal feedthrough of a layer with p ≠ m.
    """
    plain = truncate(system, kept)
    part = _gather(moments, feature_indices(system, plain.kept))
    W, D = readout_of(plain.system), feedthrough_of(system)
    left = excluding(part, D)
    direct = direct_part(system)
    candidates = [(W, D), (solve_readout(left, "none")[0], D)]
    if direct != "none":
        W_free, change = solve_readout(left, direct)
        candidates.append((W_free, D + change))
    errors = np.stack([row_errors(part, *candidate) for candidate in candidates])
    errors = np.where(np.isfinite(errors), errors, np.inf)
    errors += _GAIN * part.energy * np.arange(len(candidates))[:, None, None]
    best = np.argmin(errors, axis=0)[..., None]
    # Nothing is known about a feature that never moves: what it says stays (states with |λ| ≥ 1 under white noise).
    moves = (np.diagonal(part.features, axis1=1, axis2=2) > 0)[:, None]
    plain_W = W
    W, D = (np.choose(best, options) for options in zip(*candidates))
    W = np.where(moves, W, plain_W)
    keeps_D = direct == "none" or not (best == 2).any()
    reduced = plain.system.replace(C=readout_to_C(W, system), D=system.D if keeps_D else D)
    return Reduction(kept=plain.kept, system=reduced, changed="readout")


def refit_moved(system: DiagonalSystem, reduction: Reduction, constant: np.ndarray | float = 0.0) -> Reduction:
    """The H2-optimal read-out (and D, as far as the format holds one) for a reduction with poles of its own.

    Args:
        system: the original layer, NumPy.
        reduction: any; typically one that moved the poles. States with |λ| ≥ 1 keep their read-out.
        constant: weight of constant inputs beside white noise, one number or (G,); a large one keeps the DC gain.

    Returns:
        The reduction with C and D refitted, never worse than it was in that metric.
    """
    reduced = reduction.system
    every = np.tile(np.arange(reduced.states), (reduced.sets, 1))
    fitted = refit(without_unstable(reduced), every, joint_moments(system, reduced, constant)).system
    held = (np.abs(reduced.poles) >= 1)[:, None, None]
    changed = "readout" if reduction.changed == "none" else reduction.changed
    fitted = reduced.replace(C=np.where(held, reduced.C, fitted.C), D=fitted.D)
    return Reduction(kept=reduction.kept, system=fitted, changed=changed)


def residual(system: DiagonalSystem, reduction: Reduction, moments: Moments) -> float:
    """J(K): squared error of a reduced layer against the target, relative to the energy of the target's state part.

    The state part is y - D u with the original D. Only for reductions that kept their poles and B (truncation, refit).
    """
    reduced = reduction.system
    part = _gather(moments, feature_indices(system, reduction.kept))
    error = float(row_errors(part, readout_of(reduced), feedthrough_of(reduced)).sum())
    scale = float(excluding(moments, feedthrough_of(system)).energy.sum())
    return max(error, 0.0) / scale if scale > 0 else 0.0


def _gather(moments: Moments, index: np.ndarray) -> Moments:
    """Moments of the features (G, F_K) only."""
    rows = np.take_along_axis(np.asarray(moments.features), index[:, :, None], axis=1)
    return moments.replace(
        features=np.take_along_axis(rows, index[:, None, :], axis=2),
        input_features=np.take_along_axis(np.asarray(moments.input_features), index[:, None, :], axis=2),
        cross=np.take_along_axis(np.asarray(moments.cross), index[:, None, :], axis=2),
    )
