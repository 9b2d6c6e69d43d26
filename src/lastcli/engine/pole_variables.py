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

from lastcli.engine import loops
from lastcli.engine.moments import group_signals
from lastcli.engine.signals import Signals
from lastcli.engine.system import DiagonalSystem, sum_by_set

__all__ = ["Anchor", "anchor_of", "gradient_in_z", "moved_system"]

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
    steady = start.replace(poles=poles)
    by_pole = _rms_slopes(steady, signals)
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
        by_B=None
        if m == 1
        else _input_scale(size, gain * _rms_driven(steady, root, signals), np.abs(start.poles) >= 1),
        unmix=np.linalg.inv(root),
        held=held,
    )


def _input_scale(size: float, response: np.ndarray, held: np.ndarray) -> np.ndarray:
    return np.where(held, 0.0, size / np.maximum(response, 1e-300 + 1e-3 * response.max()))


def _rms_slopes(start: DiagonalSystem, signals: Signals) -> np.ndarray:
    """Root mean square (G, K) of ∂x/∂λ over the steps and both directions."""
    driven = loops.drive(start, loops.in_time(signals.u))
    x, slope, squares = np.empty_like(driven), np.empty_like(driven), np.zeros(start.poles.shape)
    for backwards in (False, True)[: start.directions]:
        loops.run(start.poles, driven, x, backwards=backwards)
        loops.run(start.poles, x, slope, delay=1, backwards=backwards)
        squares += _mean_squares(slope, signals)
    return np.sqrt(squares / start.directions)


def _rms_driven(start: DiagonalSystem, root: np.ndarray, signals: Signals) -> np.ndarray:
    """Root mean square (1, K) of the states of a MIMO layer that one input of unit variance alone would drive."""
    # random signs over the inputs: the mean square of the sum is the sum of the mean squares
    signs = np.random.default_rng(0).choice([-1.0, 1.0], start.inputs)
    drive = loops.in_time(signals.u @ (signs @ np.linalg.inv(root[0]))[:, None])[..., None] + 0j
    drive = np.broadcast_to(drive, (*drive.shape[:2], *start.poles.shape))
    x, squares = np.empty_like(drive), np.zeros(start.poles.shape)
    for backwards in (False, True)[: start.directions]:
        loops.run(start.poles, drive, x, backwards=backwards)
        squares += _mean_squares(x, signals)
    return np.sqrt(squares / (start.directions * start.inputs))


def _mean_squares(x: np.ndarray, signals: Signals) -> np.ndarray:
    """(G, K) of x (L, n, G, K)."""
    return np.einsum("lngk,ln->gk", x.real**2 + x.imag**2, signals.root.T**2)


def moved_system(z: Array, anchor: Anchor, base: DiagonalSystem) -> DiagonalSystem:
    """The system with the poles and B that the search variables (S, dim) stand for; C and D are not meant."""
    S, K = anchor.rho.shape
    G, m = base.groups, base.inputs
    xp = np if isinstance(z, np.ndarray) else jnp
    rho, phi = anchor.rho + anchor.by_rho * z[:, :K], anchor.phi + anchor.by_phi * z[:, K : 2 * K]
    poles = xp.tile(xp.exp(_complex(-xp.exp(rho), phi)), (G // S, 1))
    poles = xp.where(xp.tile(anchor.held, (G // S, 1)), base.poles, poles)
    if anchor.by_B is None:
        return base.replace(poles=poles)
    parts = xp.swapaxes(z[:, 2 * K :].reshape(S, G // S, 2, K, m), 0, 1).reshape(G, 2, K, m)
    move = anchor.by_B[:, None, :, None] * (parts @ anchor.unmix[:, None])
    return base.replace(poles=poles, B=base.B + _complex(move[:, 0], move[:, 1]))


def _complex(re: Array, im: Array) -> Array:
    return re + 1j * im if isinstance(re, np.ndarray) else jax.lax.complex(re, im)


def gradient_in_z(z: np.ndarray, poles: np.ndarray, B: np.ndarray, anchor: Anchor) -> np.ndarray:
    """The gradient (1, dim) in the search variables of a MIMO layer, from those in its poles (K,) and B (K, m)."""
    K = len(poles)
    rho, phi = anchor.rho + anchor.by_rho * z[:, :K], anchor.phi + anchor.by_phi * z[:, K : 2 * K]
    turned = (poles.conj() * np.exp(1j * phi - np.exp(rho)))[0]
    found = [-turned.real * np.exp(rho[0]) * anchor.by_rho[0], -turned.imag * anchor.by_phi[0]]
    if anchor.by_B is not None:
        by_parts = (anchor.by_B[0, :, None] * B) @ anchor.unmix[0].T
        found += [by_parts.real.ravel(), by_parts.imag.ravel()]
    return np.concatenate(found)[None]
