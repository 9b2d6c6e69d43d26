"""Free parameters of a diagonal layer for gradient descent: stable whatever they are, and all of the same size.

A pole is exp(-exp(ρ) + iφ), so its modulus stays below 1. Angles count in units of the pole's own bandwidth -log|λ|, B
and C in units of their root mean square once each state is balanced between the two. Only what the checkpoint's format
can hold is free: no D, a diagonal or a dense one; with one input B is absorbed by C; states of several modes keep
poles and B, which are bound to each other, and share one column of C where the format has only one; C is real, and
poles and B stay, where the format has it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lastcli.engine.readout import direct_part
from lastcli.engine.system import DiagonalSystem, feedthrough_of

__all__ = ["LayerVariables", "layer_variables"]

Array = Any
Values = dict[str, Array]

_CLOSEST = 1 - 1e-7
_NARROWEST = 1e-3


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["base", "units", "rho", "phi", "held"],
    meta_fields=[],
)
@dataclass(frozen=True)
class LayerVariables:
    """How the free values of one layer become its system; a pytree, so that programs take it as an argument.

    Attributes:
        base: the balanced system at the start, NumPy float64.
        units: what one unit of each value changes.
        rho, phi: (sets, K) log(-log|λ|) and angle of the poles at the start.
        held: (G, K) bool, |λ| ≥ 1: poles that stay as they are.
    """

    base: DiagonalSystem
    units: Values
    rho: Array
    phi: Array
    held: Array

    @property
    def start(self) -> Values:
        """The values at the start: zeros."""
        return {name: np.zeros(np.shape(unit)) for name, unit in self.units.items()}

    def system(self, values: Values) -> DiagonalSystem:
        """The system at these values, in their precision; traceable."""
        base, sets = self.base, self.base.sets
        real = jnp.result_type(next(iter(values.values())))
        wide = np.result_type(real, np.complex64)
        poles, B, C = (jnp.asarray(array, wide) for array in (base.poles, base.B, base.C))
        D = None if base.D is None else jnp.asarray(base.D, real)
        move = {name: values[name] * jnp.asarray(self.units[name], real) for name in values}
        if "rho" in move:
            rho, phi = jnp.asarray(self.rho, real) + move["rho"], jnp.asarray(self.phi, real) + move["phi"]
            one = jnp.exp(lax.complex(-jnp.exp(rho), phi))
            poles = jnp.where(self.held, poles, jnp.tile(one, (base.groups // sets, 1)))
        C_move = _complex(move["C"])
        if base.shared_readout:
            C_move = jnp.repeat(C_move, base.modes, axis=3)
        if "B" in move:
            B = B + _complex(move["B"])
        if "D" in move:
            diagonal = move["D"].ndim == 2
            D = D + (move["D"][..., None] * jnp.eye(base.outputs, dtype=real)[None] if diagonal else move["D"])
        return base.replace(poles=poles, B=B, C=C + C_move, D=D)

    def padded(self) -> LayerVariables:
        """The same layer with states behind its own that nothing drives, nothing reads and no gradient moves.

        Layers of about as many states then have the same shapes, and share compiled programs.
        """
        base = self.base
        more = _padded_size(base.states) - base.states
        if base.modes > 1 or more == 0:
            return self

        def longer(array: Array, axis: int) -> Array:
            return np.pad(array, [(0, more if i == axis else 0) for i in range(np.ndim(array))])

        axes = {"rho": 1, "phi": 1, "B": 1, "C": 3}
        return LayerVariables(
            base.replace(poles=longer(base.poles, 1), B=longer(base.B, 1), C=longer(base.C, 3)),
            {name: longer(unit, axes[name]) if name in axes else unit for name, unit in self.units.items()},
            longer(self.rho, 1),
            longer(self.phi, 1),
            longer(self.held, 1),
        )


def _padded_size(states: int) -> int:
    """A multiple of 16, or 8: the smaller a layer, the less its states cost beside a compilation."""
    return 8 if states <= 8 else -(-states // 16) * 16


def layer_variables(system: DiagonalSystem) -> LayerVariables:
    """The free values of a layer, all zero at the system given (poles and B with |λ| ≥ 1 are not free)."""
    direct = direct_part(system)
    base = _balanced(system)
    D = np.array(feedthrough_of(system), dtype=np.float64)
    if direct != "none":
        base = base.replace(D=D)
    K = base.poles.shape[1]
    columns = base.states if base.shared_readout else K
    parts = 1 if base.real_readout else 2
    units: Values = {"C": np.broadcast_to(_rms(base.C, (1, 2, 3)), (*base.C.shape[:3], columns, parts))}
    if not _bound(system):
        bandwidth = -np.log(np.abs(base.poles[: system.sets]))
        units |= {"rho": np.ones((system.sets, K)), "phi": np.clip(bandwidth, _NARROWEST, 1.0)}
        if system.inputs > 1:
            units["B"] = np.where(_held(base.poles)[..., None, None], 0.0, _rms(base.B, (1, 2))) * np.ones(2)
            units["B"] = np.broadcast_to(units["B"], (*base.B.shape, 2))
    if direct != "none":
        size = np.maximum(_rms(D, (1, 2)), 1e-3 * max(float(np.abs(D).max()), 1e-3))
        shape = (base.groups, base.outputs) if direct == "diagonal" else D.shape
        units["D"] = np.broadcast_to(size[:, 0] if direct == "diagonal" else size, shape)
    rho, phi = _logarithmic(_inside(np.asarray(base.poles[: base.sets])))
    return LayerVariables(base, units, rho, phi, _held(base.poles))


def _bound(system: DiagonalSystem) -> bool:
    """Whether poles and B are given: by the format, or because the modes of a state are bound to each other."""
    return system.fixed_poles or system.modes > 1


def _balanced(system: DiagonalSystem) -> DiagonalSystem:
    """The same response with |b_i| = |c_i| of every state, B kept where it is not free."""
    poles = system.poles if _bound(system) else np.where(_held(system.poles), system.poles, _inside(system.poles))
    if system.inputs == 1 or _bound(system):
        return system.replace(poles=poles)
    b = np.sqrt((np.abs(system.B) ** 2).mean(axis=2))
    c = np.sqrt((np.abs(system.C) ** 2).mean(axis=(1, 2)))
    share = np.sqrt(np.where((b > 0) & (c > 0), c / np.where(b > 0, b, 1), 1.0))
    return system.replace(poles=poles, B=system.B * share[..., None], C=system.C / share[:, None, None, :])


def _held(poles: np.ndarray) -> np.ndarray:
    """States that somebody allowed to be unstable: they stay as they are."""
    return np.abs(poles) >= 1


def _inside(poles: np.ndarray) -> np.ndarray:
    """The same poles, kept off the origin and the unit circle, where log(-log|λ|) does not exist."""
    return np.clip(np.abs(poles), 1e-6, _CLOSEST) * np.exp(1j * np.angle(poles))


def _rms(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    value = np.sqrt((np.abs(array) ** 2).mean(axis=axes, keepdims=True))
    return np.where(value > 0, value, 1.0)[..., None] if np.iscomplexobj(array) else value


def _logarithmic(poles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.log(-np.log(np.abs(poles))), np.angle(poles)


def _complex(parts: Array) -> Array:
    parts = parts.astype(np.result_type(parts.dtype, np.complex64))
    return parts[..., 0] + (1j * parts[..., 1] if parts.shape[-1] == 2 else 0j)
