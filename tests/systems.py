"""Random stable `DiagonalSystem`s of every kind, shared by the engine's tests."""

from __future__ import annotations

import numpy as np

from lastcli.engine.system import DiagonalSystem

KINDS = (
    "mimo",
    "paired",
    "bidirectional",
    "delay",
    "multi",
    "multi-bidirectional",
    "tied",
    "oscillators",
    "real-poles",
    "bidirectional-real",
)


def random_system(
    seed: int = 0,
    *,
    states: int = 5,
    inputs: int = 3,
    outputs: int = 2,
    groups: int = 1,
    directions: int = 1,
    pairing: int = 1,
    delay: int = 0,
    modes: int = 1,
    sets: int | None = None,
    multi: bool = False,
    feedthrough: str = "dense",
    radius: tuple[float, float] = (0.3, 0.95),
    real_poles: int = 0,
    real_readout: bool = False,
) -> DiagonalSystem:
    """A stable system with |λ| uniform in `radius`; the first `real_poles` poles of a group are real with real B, C.

    With `real_readout` all of C is real.
    """
    rng = np.random.default_rng(seed)
    wide = states * modes

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    poles = rng.uniform(*radius, (groups, wide)) * np.exp(1j * rng.uniform(0.1, np.pi - 0.1, (groups, wide)))
    B, C = draw(groups, wide, inputs), draw(groups, directions, outputs, wide)
    poles[:, :real_poles] = np.abs(poles[:, :real_poles])
    B[:, :real_poles] = B[:, :real_poles].real
    C[..., :real_poles] = C[..., :real_poles].real
    if real_readout:
        C = C.real + 0j
    D = None if feedthrough == "none" else rng.normal(size=(groups, outputs, inputs))
    if D is not None and feedthrough == "diagonal":
        D = D * np.eye(outputs, inputs)
    return DiagonalSystem(
        poles=poles, B=B, C=C, D=D, pairing=pairing, delay=delay, modes=modes,
        sets=(groups if multi else 1) if sets is None else sets, feedthrough=feedthrough, multi=multi,
        real_readout=real_readout,
    )  # fmt: skip


def oscillators(seed: int = 0, *, states: int = 4, inputs: int = 2, outputs: int = 2) -> DiagonalSystem:
    """Two poles a stored state, a conjugate pair with conjugate B and C: a real 2×2 oscillator with pairing 1."""
    half = random_system(seed, states=states, inputs=inputs, outputs=outputs)
    return half.replace(
        poles=_interleave(half.poles, half.poles.conj(), 1),
        B=_interleave(half.B, half.B.conj(), 1),
        C=_interleave(half.C, half.C.conj(), 3),
        modes=2,
    )


def _interleave(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    stacked = np.stack([a, b], axis=axis + 1)
    shape = list(a.shape)
    shape[axis] *= 2
    return stacked.reshape(shape)


def system_of(kind: str, seed: int = 0) -> DiagonalSystem:
    """One small system of each kind the engine must handle."""
    multi = {"inputs": 1, "outputs": 1, "groups": 3, "multi": True, "pairing": 2, "feedthrough": "diagonal"}
    options: dict[str, dict] = {
        "mimo": {},
        "paired": {"pairing": 2, "feedthrough": "diagonal", "inputs": 3, "outputs": 3},
        "bidirectional": {"pairing": 2, "directions": 2, "feedthrough": "none"},
        "delay": {"delay": 1},
        "multi": multi,
        "multi-bidirectional": {**multi, "directions": 2, "outputs": 2},
        "tied": {**multi, "sets": 1},
        "real-poles": {"real_poles": 2},
        "bidirectional-real": {"real_readout": True, "directions": 2},
    }
    if kind == "oscillators":
        return oscillators(seed)
    system = random_system(seed, **options[kind])
    if kind == "tied":
        system = system.replace(poles=np.repeat(system.poles[:1], system.groups, axis=0))
    return system


def embed(system: DiagonalSystem, slots: int, at: np.ndarray) -> DiagonalSystem:
    """The same system in `slots` states, at the given slots, zero poles, B and C elsewhere (a masked layer)."""
    poles = np.zeros((system.groups, slots), complex)
    B = np.zeros((system.groups, slots, system.inputs), complex)
    C = np.zeros((system.groups, system.directions, system.outputs, slots), complex)
    poles[:, at], B[:, at], C[..., at] = system.poles, system.B, system.C
    return system.replace(poles=poles, B=B, C=C)
