"""A tiny model with two state space layers, and its output by a plain recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np

from lastcli.engine.system import DiagonalSystem
from lastcli.evaluation.data import Split
from lastcli.families.base import Forward

FEATURES, WIDTH, STATES, CLASSES = 2, 4, 6, 3


class Counted:
    """The architecture; `traces` counts how often JAX traced it."""

    def __init__(self, *, sequence: bool = False, step: int = 1) -> None:
        self.traces = 0
        self.sequence, self.step = sequence, step

    def __call__(self, params: Any, systems: Any, x: Any, lengths: Any) -> tuple[Any, Any]:
        import jax.numpy as jnp

        from lastcli.engine.simulate import simulate

        self.traces += 1
        h = x @ params["in"]
        inputs = []
        for system in systems:
            inputs.append(h)
            h = h + jnp.tanh(simulate(system, h))
        if not self.sequence:
            weights = jnp.ones(h.shape[:2]) if lengths is None else jnp.arange(h.shape[1])[None] < lengths[:, None]
            weights = weights.astype(h.dtype)[..., None]
            h = (h * weights).sum(1) / weights.sum(1)
        else:
            h = h[:, self.step - 1 :: self.step]
        return h @ params["out"], tuple(inputs)


def forward(architecture: Counted, task: str = "classification") -> Forward:
    sequence, step = architecture.sequence, architecture.step
    return Forward(architecture, FEATURES, CLASSES, task, sequence, ("in", "out"), output_step=step)


def parameters(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "in": generator.standard_normal((FEATURES, WIDTH)).astype(np.float32),
        "out": generator.standard_normal((WIDTH, CLASSES)).astype(np.float32),
    }


def systems(seed: int = 1) -> tuple[DiagonalSystem, ...]:
    generator = np.random.default_rng(seed)

    def layer() -> DiagonalSystem:
        radius, angle = generator.uniform(0.5, 0.95, (1, STATES)), generator.uniform(0, 3, (1, STATES))
        b = generator.standard_normal((2, 1, STATES, WIDTH))
        c = generator.standard_normal((2, 1, 1, WIDTH, STATES))
        return DiagonalSystem(radius * np.exp(1j * angle), b[0] + 1j * b[1], (c[0] + 1j * c[1]) / STATES, pairing=2)

    return layer(), layer()


def masked(layers: tuple[DiagonalSystem, ...], kept: int) -> tuple[DiagonalSystem, ...]:
    mask = np.arange(STATES) < kept
    return tuple(s.replace(poles=s.poles * mask, B=s.B * mask[:, None], C=s.C * mask) for s in layers)


def split(n: int = 23, length: int = 9, seed: int = 2, **changes: object) -> Split:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((n, length, FEATURES)).astype(np.float32)
    fields: dict[str, Any] = {"x": x, "y": generator.integers(0, CLASSES, n), "name": "split"}
    return Split(**(fields | changes))


def reference(
    params: dict[str, np.ndarray],
    layers: tuple[DiagonalSystem, ...],
    x: np.ndarray,
    lengths: np.ndarray | None = None,
    sequence: bool = False,
) -> np.ndarray:
    """The same model as a loop over time in float64."""
    h = x.astype(np.float64) @ params["in"]
    for system in layers:
        state = np.zeros((len(x), system.poles.shape[1]), complex)
        y = np.zeros_like(h)
        for step in range(h.shape[1]):
            state = system.poles[0] * state + h[:, step] @ system.B[0].T
            y[:, step] = 2 * (state @ system.C[0, 0].T).real
        h = h + np.tanh(y)
    if not sequence:
        kept = np.ones(h.shape[:2]) if lengths is None else np.arange(h.shape[1]) < lengths[:, None]
        h = (h * kept[..., None]).sum(1) / kept.sum(1)[:, None]
    return h @ params["out"]
