"""The error of a MIMO layer after the best read-out, and its gradient in poles and B, by NumPy.

What a pole refit asks for again and again. `poles` says the same to XLA for accelerators; on a CPU XLA's float64
products take about four times as long as NumPy's. What does not depend on poles and B is computed once, and the
gradient goes back through the recurrence by hand, with e the error of the outputs and w the weights of the steps:

    g = -2 w Wᵀe,    q[k] = g[k] + λ* q[k+1],    ∂/∂B = Σ q[k] u[k]ᵀ,    ∂/∂λ = Σ q[k] x[k-1]*
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lastcli.engine import loops
from lastcli.engine.moments import Moments
from lastcli.engine.pole_variables import Anchor, gradient_in_z, moved_system
from lastcli.engine.readout import solve_readout
from lastcli.engine.signals import Signals
from lastcli.engine.system import DiagonalSystem, feedthrough_of

__all__ = ["Projected", "Rows", "own_error", "read_out"]


@dataclass(frozen=True)
class Rows:
    """Signals of a MIMO layer in the order of time, and those of their moments that no search changes.

    Attributes:
        pair: (L, n, p + m), the target less D u, and u.
        outputs: p.
        weight: (L·n, 1), or one number where all steps count alike.
        epsilon: the ridge on the inputs, relative to their power.
        ridge: the ridge on the features.
    """

    pair: np.ndarray
    outputs: int
    weight: Any
    epsilon: float
    ridge: float

    @classmethod
    def of(cls, signals: Signals, D: np.ndarray) -> Rows:
        """The rows of signals, with y - D u as target; D (1, p, m)."""
        p, m = D.shape[1:]
        pair = np.empty((*signals.root.T.shape, p + m))
        pair[..., p:] = np.swapaxes(signals.u, 0, 1)
        pair[..., :p] = np.swapaxes(signals.y, 0, 1)
        if D.any():
            pair[..., :p] -= np.swapaxes(signals.u @ D[0].T, 0, 1)
        weight = signals.root.T.reshape(-1, 1) ** 2
        alike = bool((weight == weight[0]).all())
        epsilon = float(signals.epsilon)
        return cls(pair, p, float(weight[0, 0]) if alike else weight, epsilon, epsilon * float(signals.variance[0]))

    @cached_property
    def inputs(self) -> np.ndarray:
        """(1, m, m), E[u uᵀ] with its ridge."""
        return self._by_inputs[None, self.outputs :] * (1 + self.epsilon * np.eye(self.u.shape[2]))

    @cached_property
    def target_inputs(self) -> np.ndarray:
        """(1, p, m)."""
        return self._by_inputs[None, : self.outputs]

    @cached_property
    def energy(self) -> np.ndarray:
        """(1, p), the mean squares of the target."""
        y = _flat(self.pair)[:, : self.outputs]
        return np.einsum("tp,tp->p", y * self.weight, y)[None]

    @cached_property
    def _by_inputs(self) -> np.ndarray:
        return _flat(self.pair).T @ (_flat(self.u) * self.weight)

    @property
    def u(self) -> np.ndarray:
        """(L, n, m)."""
        return self.pair[..., self.outputs :]

    def left(self, change: np.ndarray) -> np.ndarray:
        """(L·n, p): the target less `change` (p, m) of D times u, an array of its own."""
        y, u = _flat(self.pair[..., : self.outputs]), _flat(self.u)
        own = np.diagonal(change)
        if not change.any():
            return y.copy()
        taken = u * own if change.shape == (own.size, own.size) and (change == np.diag(own)).all() else u @ change.T
        return np.subtract(y, taken, out=taken)

    def moments(self, f: np.ndarray) -> Moments:
        """Moments of features (L·n, F), in the order they come in."""
        p, alike = self.outputs, isinstance(self.weight, float)
        factor, counted = (self.weight, f) if alike else (1.0, f * self.weight)
        # of a matrix with itself BLAS computes one half
        features = factor * (f.T @ counted)
        features[np.diag_indices_from(features)] += self.ridge
        # the fewer rows of the two stand first: the other way round takes half as long again
        cross = factor * (counted.T @ _flat(self.pair)).T[None]
        return Moments(
            features=features[None],
            input_features=cross[:, p:],
            inputs=self.inputs,
            cross=cross[:, :p],
            target_inputs=self.target_inputs,
            energy=self.energy,
            weight=np.array(np.inf),  # what ridge there is, is in features and inputs
        )


class Projected:
    """Errors, their gradients and the held-back errors at the search variables, as `descent.minimise` asks for them.

    Args:
        anchor: the start and the scales.
        base: a MIMO layer.
        D: (1, p, m), the original feedthrough.
        fit: signals to fit.
        held: signals held back.
        direct: what D may absorb.
    """

    def __init__(
        self, anchor: Anchor, base: DiagonalSystem, D: np.ndarray, fit: Signals, held: Signals, direct: str
    ) -> None:
        self._anchor, self._base, self._direct = anchor, base, direct
        self._fit, self._held = Rows.of(fit, D), Rows.of(held, D)

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Errors (1,), gradients (1, dim), and the errors (1,) of the same read-outs on the held-back part."""
        moved, rows = moved_system(z, self._anchor, self._base), self._fit
        x = _states(moved, rows)
        f = _features(x, moved)
        W, change = (found[0] for found in solve_readout(rows.moments(f), self._direct))
        left = rows.left(change)
        left -= f @ W.T
        # what the ridge takes is part of the value, as in `row_errors`
        power = np.diagonal(rows.inputs[0]) / (1 + rows.epsilon)
        taken = rows.ridge * (W**2).sum() + rows.epsilon * (change**2 @ power).sum()
        energy = _positive(rows.energy.sum())
        value = (_sum_of_squares(left, rows) + taken) / energy
        # at the minimum over the read-out its own derivative drops out (envelope theorem)
        left *= (-2 / energy) * rows.weight
        g = left @ W
        gradient = gradient_in_z(z, *_backwards(moved, rows.u, x, g), self._anchor)
        unseen = squared_error(moved, W, change, self._held) / _positive(self._held.energy.sum())
        return np.array([value]), gradient, np.array([unseen])


def read_out(system: DiagonalSystem, rows: Rows, direct: str) -> tuple[np.ndarray, np.ndarray]:
    """C (1, R, p, K) and the change of D (1, p, m) that fit the rows best; the system's own are not looked at."""
    W, change = solve_readout(rows.moments(_features(_states(system, rows), system)), direct)
    parts = W.reshape(1, rows.outputs, system.directions, system.poles.shape[1], -1) / system.pairing
    C = parts[..., 0] - (0j if system.real_readout else 1j * parts[..., 1])
    return np.moveaxis(C, 2, 1), change


def squared_error(system: DiagonalSystem, W: np.ndarray, change: np.ndarray, rows: Rows) -> float:
    """E‖y - W f - (D + change) u‖² over the rows; W (p, F) reads the features in the order of `_features`."""
    left = rows.left(change)
    left -= _features(_states(system, rows), system) @ W.T
    return _sum_of_squares(left, rows)


def own_error(system: DiagonalSystem, rows: Rows, D: np.ndarray) -> float:
    """The same with the system's own read-out; D (1, p, m) is what the rows were made with."""
    C = system.pairing * np.moveaxis(system.C[0], 0, 1)  # (p, R, K)
    W = C.real if system.real_readout else np.stack([C.real, -C.imag], axis=-1)
    return squared_error(system, W.reshape(len(W), -1), np.asarray(feedthrough_of(system) - D)[0], rows)


def _states(system: DiagonalSystem, rows: Rows) -> np.ndarray:
    """(L, n, R, K) complex."""
    return loops.passed(system, rows.u)[:, :, :, 0]


def _sum_of_squares(left: np.ndarray, rows: Rows) -> float:
    """Weighted, of (L·n, p)."""
    return float(np.einsum("tp,tp->t", left, left) @ np.broadcast_to(rows.weight, (len(left), 1))[:, 0])


def _positive(energy: float) -> float:
    return float(energy) if energy > 0 else 1.0


def _flat(array: np.ndarray) -> np.ndarray:
    """(L, n, c) as (L·n, c)."""
    return array.reshape(-1, array.shape[2])


def _features(x: np.ndarray, system: DiagonalSystem) -> np.ndarray:
    """(L·n, F): direction, state, part."""
    return (x.real if system.real_readout else x.view(float)).reshape(len(x) * x.shape[1], -1)


def _backwards(system: DiagonalSystem, u: np.ndarray, x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """∂/∂λ (K,) and ∂/∂B (K, m), a real and an imaginary part of each, from the features' gradient g (L·n, F)."""
    g = (g.astype(complex) if system.real_readout else g.view(complex)).reshape(x.shape)
    by_poles, total = np.zeros(x.shape[3], complex), np.zeros_like(x[:, :, 0])
    q = np.empty_like(total)
    for d in range(system.directions):
        loops.run(system.poles[0].conj(), g[:, :, d], q, delay=system.delay, backwards=d == 0)
        total += q
        after, before = q, x[:, :, d]  # what is read with a delay is the state before
        if not system.delay:
            after, before = (q[1:], before[:-1]) if d == 0 else (q[:-1], before[1:])
        by_poles += np.einsum("lnk,lnk->k", after, before.conj())
    parts = _flat(total).view(float).T @ _flat(u)
    return by_poles, parts[0::2] + 1j * parts[1::2]
