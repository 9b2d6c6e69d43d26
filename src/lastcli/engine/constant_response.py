"""Read-outs that keep the response to constant inputs: least squares in the H2 metric under linear constraints.

What a row of the read-out W, and its entry of a diagonal D, answer to constant inputs long after they began is linear
in them: with the held features h (F, m) under each unit input, w h + d e must be the row of G(1), m equations. What
freedom is left after that (the null space method, Golub and Van Loan, Matrix Computations, section 6.2) goes into the
H2 error.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lastcli.engine.features import readout_of, readout_to_C
from lastcli.engine.moments import Moments
from lastcli.engine.readout import RIDGE, direct_part, excluding, feature_scale
from lastcli.engine.system import DiagonalSystem, Reduction, feedthrough_of
from lastcli.engine.white_noise import constant_features, joint_moments, without_unstable

__all__ = ["refit_keeping_constants"]

# Directions of the constraints below this part of the largest cannot be met but by huge numbers that cancel.
_RANK = 1e-9


def refit_keeping_constants(system: DiagonalSystem, reduction: Reduction) -> Reduction | None:
    """The read-out (and diagonal D) with the smallest H2 error among those that keep the response to constant inputs.

    Args:
        system: the original layer, NumPy.
        reduction: with poles of its own. States with |λ| ≥ 1 keep their read-out.

    Returns:
        The reduction with C and D refitted; None where the states are too few: a row of the read-out has 2·R·K
        numbers, one more with a diagonal D, and as many equations as the layer has inputs.
    """
    reduced, stable = reduction.system, without_unstable(system)
    idle = without_unstable(reduced)
    D = np.array(feedthrough_of(system), np.float64)
    moments = excluding(joint_moments(system, reduced), D)
    held = constant_features(idle)
    gain = readout_of(stable) @ constant_features(stable)
    diagonal = direct_part(system) == "diagonal"
    W = np.zeros((system.groups, system.outputs, held.shape[1]))
    for g in range(system.groups):
        for o in range(system.outputs) if diagonal else [slice(None)]:
            problem = _Rows.of(moments, held, gain, g, o, diagonal)
            solution = problem.solve()
            if solution is None:
                return None
            W[g, o] = solution[..., : held.shape[1]].reshape(W[g, o].shape)
            if diagonal:
                D[g, o, o] += solution[0, -1]
    C = np.where((np.abs(reduced.poles) >= 1)[:, None, None], reduced.C, readout_to_C(W, reduced))
    return dataclasses.replace(reduction, system=reduced.replace(C=C, D=D if diagonal else system.D), bound=None)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Rows of a read-out over features of unit mean variance: minimise v Q vᵀ - 2 x vᵀ where v H = g.

    Q (F, F), x (p, F), H (F, m), g (p, m), and the scale (F,) that v is to be divided by.
    """

    Q: np.ndarray
    x: np.ndarray
    H: np.ndarray
    g: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(
        cls, moments: Moments, held: np.ndarray, gain: np.ndarray, g: int, rows: int | slice, diagonal: bool
    ) -> _Rows:
        """All rows of group g, or the one that has an input of its own as last feature."""
        scale = feature_scale(moments.features[g])
        Q, x, H = moments.features[g], moments.cross[g, rows], held[g]
        target = gain[g, rows]
        if diagonal:
            own = moments.input_features[g, rows]
            Q = np.block([[Q, own[:, None]], [own[None], moments.inputs[g, rows, rows]]])
            x = np.append(x, moments.target_inputs[g, rows, rows])[None]
            H = np.concatenate([H, np.eye(H.shape[1])[rows][None]])
            scale, target = np.append(scale, 1.0), target[None]
        Q = Q / (scale[:, None] * scale) + RIDGE * np.eye(len(Q))
        return cls(Q, x / scale, H / scale[:, None], target, scale)

    def solve(self) -> np.ndarray | None:
        """(p, F); None where the constraints cannot be met."""
        U, size, Vt = np.linalg.svd(self.H, full_matrices=True)
        rank = int((size > _RANK * size.max(initial=0.0)).sum())
        v = (self.g @ Vt[:rank].T) / size[:rank] @ U[:, :rank].T
        if np.linalg.norm(v @ self.H - self.g) > _RANK * np.linalg.norm(self.g):
            return None
        free = U[:, rank:]
        rest = (self.x - v @ self.Q) @ free
        v = v + np.linalg.solve(free.T @ self.Q @ free, rest.T).T @ free.T
        return np.asarray(v / self.scale)
