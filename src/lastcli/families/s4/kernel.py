"""The numbers of a kernel of the S4 repository: from stored tensors to discrete systems and back. NumPy only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Layer, Read
from lastcli.families.parts import multi_siso as ms
from lastcli.families.parts.discretise import continuous, discrete
from lastcli.families.parts.row_softmax import softmax_gain
from lastcli.families.parts.storage import as_complex, pad_states, store
from lastcli.families.parts.two_sided import merge_modes
from lastcli.families.s4.names import imag_sign, parameter_of, relu_floor

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem

__all__ = [
    "input_map",
    "is_real_valued",
    "pairing_of",
    "read_outs",
    "state_axes",
    "store_read_outs",
    "to_continuous",
    "to_discrete",
    "unfold",
    "write_poles",
]

# A pole this close to the real axis counts as real where the format has no imaginary part.
_REAL = 1e-9


def is_real_valued(layer: Layer) -> bool:
    """Whether the kernel has real poles only (V4's `is_real`): no imaginary part and no pair axis."""
    return "imag" not in layer.tensors and "w" not in layer.tensors


def _complex(layer: Layer, array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128) if is_real_valued(layer) else as_complex(array)


def read_outs(layer: Layer, config: Config, read: Read) -> np.ndarray:
    """C (H, R, heads, N) complex; the rows of the stored tensor are directions, then heads."""
    C = _complex(layer, read(layer.tensors["C"]))
    rows, H, N = C.shape
    R = 2 if config["bidirectional"] else 1
    return C.reshape(R, rows // R, H, N).transpose(2, 0, 1, 3)


def store_read_outs(layer: Layer, C: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A stored C (R·heads, H, K[, 2]) from (H, R, heads, K)."""
    rows = C.transpose(1, 2, 0, 3).reshape(-1, C.shape[0], C.shape[3])
    return store(rows.real if is_real_valued(layer) else rows, like, layer.tensors["C"])


def input_map(layer: Layer, read: Read, channels: int) -> np.ndarray | None:
    """B (H, N) complex, repeated over the channels of a copy; None where the format has none (B = 1)."""
    if "B" not in layer.tensors:
        return None
    B = _complex(layer, read(layer.tensors["B"]))
    B = B.reshape(-1, B.shape[-1])
    return B[np.arange(channels) % len(B)]


def state_axes(layer: Layer, read: Read) -> dict[str, tuple[int, int]]:
    """Role → (channel axis, state axis) of every tensor that carries states, read by the forward pass or not."""
    axes = {"C": (1, 2), **{role: (0, 1) for role in ("real", "imag", "w", "idle A") if role in layer.tensors}}
    if "B" in layer.tensors:
        B = read(layer.tensors["B"])
        body = B.ndim - (0 if B.dtype.kind == "c" or is_real_valued(layer) else 1)
        axes["B"] = (body - 2, body - 1)
    dt = read(layer.tensors["dt"])
    if dt.ndim == 2 and dt.shape[1] == layer.states > 1:
        axes["dt"] = (0, 1)
    return axes


def _rule(layer: Layer, config: Config) -> str:
    if config["discretization"] != "auto":
        return config["discretization"]
    return "zoh" if imag_sign(layer) < 0 or "B" not in layer.tensors else "bilinear"


def pairing_of(layer: Layer, config: Config) -> int:
    """The factor of the real part: the dss rule takes Re Σ of the stored half, all the others 2·Re Σ."""
    return 1 if _rule(layer, config) == "dss" else 2


def to_discrete(layer: Layer, config: Config, a: np.ndarray, dt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Discrete poles and input gains (H, N) of continuous poles (H, N) with steps (H, 1) or (H, N)."""
    rule = _rule(layer, config)
    if rule == "dss":
        return np.exp(a * dt), softmax_gain(a, a * dt, config["kernel_length"], layer.name)
    return discrete(np, rule, a, dt)


def to_continuous(layer: Layer, config: Config, poles: np.ndarray, dt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Continuous poles and input gains of discrete poles; the inverse of `to_discrete`."""
    rule = _rule(layer, config)
    a = continuous("zoh" if rule == "dss" else rule, poles, dt)
    return a, to_discrete(layer, config, a, dt)[1]


def unfold(system: DiagonalSystem, layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Poles (H, K), B (H, K), C (H, R, heads, K) as the format has them, and D (H, heads) with what only D can hold.

    Raises:
        UnsupportedModelError: a direct term has to be stored and the layer has no D.
    """
    poles, B, C = np.asarray(system.poles), np.asarray(system.B)[..., 0], np.asarray(system.C)
    D = None if system.D is None else np.asarray(system.D)[..., 0]
    if system.modes == 1:
        return poles, B, C, D
    poles, B, C, direct = merge_modes(poles, B, C, system.pairing)
    if D is None and np.abs(direct).max(initial=0.0) > 0:
        raise UnsupportedModelError(
            f"{layer.name}: a refit of a bidirectional layer needs a D to hold its direct part, and this one has none; "
            "use --refit none."
        )
    return poles, B, C, None if D is None else D + direct


def write_poles(
    layer: Layer, config: Config, read: Read, a: np.ndarray, size: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Stored tensors of continuous poles (H, K), one copy a channel, and where a mode is replaced by its conjugate.

    Only half of each pair is stored, so a mode may be written as its conjugate where the frequency's transform takes
    one sign only; its B and C are then the conjugates too.

    Raises:
        UnsupportedModelError: complex poles in a real-valued kernel.
    """
    if "w" in layer.tensors:
        padded = pad_states(a, size, -ms.INERT_DECAY)
        return {"w": store(padded, read(layer.tensors["w"]), layer.tensors["w"])}, np.zeros(a.shape, bool)
    kind, floor = config["real_transform"], relu_floor(layer)
    real = pad_states(np.maximum(-a.real, 0.0), size, ms.INERT_DECAY)
    rate = parameter_of(real, kind, floor, "a decay rate")
    new = {"real": store(rate, read(layer.tensors["real"]), layer.tensors["real"])}
    if "idle A" in layer.tensors:
        idle = layer.tensors["idle A"]
        new["idle A"] = store(pad_states(a, size, -ms.INERT_DECAY), read(idle), idle)
    frequency = imag_sign(layer) * a.imag
    if is_real_valued(layer):
        if np.abs(frequency).max(initial=0.0) > _REAL:
            raise UnsupportedModelError(
                f"{layer.name}: the reduced layer has complex poles, but its kernel holds real ones only; use a method "
                "that keeps the poles."
            )
        return new, np.zeros(a.shape, bool)
    flipped = np.zeros(a.shape, bool)
    if config["imag_transform"] != "none":
        flipped, frequency = frequency < 0, np.abs(frequency)
    # The frequency of inert states is any that the transform can hold.
    frequency = pad_states(frequency, size, floor)
    frequency = parameter_of(frequency, config["imag_transform"], floor, "a frequency")
    return new | {"imag": store(frequency, read(layer.tensors["imag"]), layer.tensors["imag"])}, flipped
