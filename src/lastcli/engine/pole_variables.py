"""Search variables of a pole refit: stable whatever they are, and scaled by what they do to the output.

States with |λ| ≥ 1 are there because somebody allowed them, and stay as they are: no variable moves their pole or B.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.moments import group_signals
from lastcli.engine.signals import Signals
from lastcli.engine.system import DiagonalSystem, sum_by_set

__all__ = ["Anchor", "anchor_of", "moved_system"]

Array = Any

_CLOSEST = 1 - 1e-7


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rho", "phi", "by_rho", "by_phi", "by_B", "unmix", "held"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Anchor:
    """The start of the search and the scale of every search variable; poles (S, K) by set, B by group."""

    rho: Array  # log(-log|λ|)
    phi: Array  # angle
    by_rho: Array
    by_phi: Array
    by_B: Array | None  # (G, K), None where B is absorbed by C
    unmix: Array  # (G, m, m), from inputs of unit covariance to those of the layer
    held: Array  # (S, K) bool, |λ| ≥ 1: what stays as it is

    @property
    def shape(self) -> tuple[int, int]:
        """(S, dim) of the search variables: ρ, φ, Re B, Im B of the set's groups."""
        S, K = self.rho.shape
        inputs = 0 if self.by_B is None else 2 * K * self.unmix.shape[1] * (self.unmix.shape[0] // S)
        return S, 2 * K + inputs


def anchor_of(start: DiagonalSystem, signals: Signals) -> Anchor:
    """The start and its scales; the response to each variable is measured on the signals."""
    S, groups, m = start.sets, start.groups, start.inputs
    radius = np.clip(np.abs(start.poles), 1e-3, _CLOSEST)
    poles = radius * np.exp(1j * np.angle(start.poles))
    v = np.asarray(group_signals(signals.u * signals.root[..., None], groups, start.multi))
    covariance = v.swapaxes(1, 2) @ v
    power = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / m
    root = np.linalg.cholesky(covariance + (1e-6 * power + 1e-30) * np.eye(m))
    by_pole, by_input = _responses(start.replace(poles=poles), root, signals)
    gain = start.pairing * np.sqrt((np.abs(start.C) ** 2).sum(axis=(1, 2)) / 2)
    by_lambda = np.sqrt(sum_by_set((gain * by_pole) ** 2, S))
    size = np.sqrt(max(float((signals.y**2 * signals.root[..., None] ** 2).sum()) / max(groups, 1), 1e-300))
    pole, log_radius = poles[:S], np.log(radius[:S])

    held = np.abs(start.poles[:S]) >= 1

    def scale(response: np.ndarray) -> np.ndarray:
        # No variable moves by more than a factor or a radian at once, however little it seems to do.
        return np.where(held, 0.0, np.minimum(size / np.maximum(response, 1e-300), 1.0))

    return Anchor(
        rho=np.log(-log_radius),
        phi=np.angle(pole),
        by_rho=scale(by_lambda * np.abs(pole) * -log_radius),
        by_phi=scale(by_lambda * np.abs(pole)),
        by_B=None if m == 1 else _input_scale(size, gain * by_input, np.abs(start.poles) >= 1),
        unmix=np.linalg.inv(root),
        held=held,
    )


def _input_scale(size: float, response: np.ndarray, held: np.ndarray) -> np.ndarray:
    return np.where(held, 0.0, size / np.maximum(response, 1e-300 + 1e-3 * response.max()))


def _responses(start: DiagonalSystem, root: np.ndarray, signals: Signals) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square (G, K) of ∂x/∂λ, and of the states that one input of unit variance alone would drive.

    One plain pass over the steps, both directions together: only sizes are needed, and nothing has to be compiled.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (1, 1, start.inputs))
    # Random signs over the inputs: the mean square of the sum is the sum of the mean squares.
    probe = np.broadcast_to(signs @ np.linalg.inv(root), start.B.shape)
    squares = np.zeros((2, *start.poles.shape))
    for d in range(start.directions):
        steps = range(signals.u.shape[1])[:: 1 if d == 0 else -1]
        x, slope, single = (np.zeros((len(signals.u), *start.poles.shape), complex) for _ in range(3))
        for k in steps:
            u = signals.u[:, k]
            v = u.T[:, :, None] if start.multi else u[None]
            slope = start.poles * slope + x
            x = start.poles * x + (v @ start.B.swapaxes(1, 2)).swapaxes(0, 1)
            single = start.poles * single + (v @ probe.swapaxes(1, 2)).swapaxes(0, 1)
            weight = signals.root[:, k, None, None] ** 2 / start.directions
            squares += [(weight * np.abs(value) ** 2).sum(axis=0) for value in (slope, single)]
    slope_rms, single_rms = np.sqrt(squares)
    return slope_rms, single_rms / np.sqrt(start.inputs)


def moved_system(z: Array, anchor: Anchor, base: DiagonalSystem) -> DiagonalSystem:
    """The system with the poles and B that the search variables (S, dim) stand for; C and D are not meant."""
    S, K = anchor.rho.shape
    G, m = base.groups, base.inputs
    rho, phi = anchor.rho + anchor.by_rho * z[:, :K], anchor.phi + anchor.by_phi * z[:, K : 2 * K]
    poles = jnp.tile(jnp.exp(jax.lax.complex(-jnp.exp(rho), phi)), (G // S, 1))
    poles = jnp.where(jnp.tile(anchor.held, (G // S, 1)), base.poles, poles)
    if anchor.by_B is None:
        return base.replace(poles=poles)
    parts = jnp.swapaxes(z[:, 2 * K :].reshape(S, G // S, 2, K, m), 0, 1).reshape(G, 2, K, m)
    parts = jax.lax.complex(parts[:, 0], parts[:, 1])
    move = anchor.by_B[..., None].astype(parts.dtype) * (parts @ anchor.unmix.astype(parts.dtype))
    return base.replace(poles=poles, B=base.B + move)
