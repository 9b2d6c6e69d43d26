"""The mixers of Zamba's first version, Mamba 1 in heads, and an `S6HeadsSystem`, either way.

As transformers stores them: `A_log` (h, p, N), `x_proj_weight` (h, r + 2N, p), `dt_proj_weight` (h, p, r),
`dt_proj_bias` and `D` (h, p); the rows of `in_proj` go x, gate, x, gate, channel after channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.families.base import Layer, Read, Tensors
from lastcli.families.mamba.s6 import at_least_float32, in_float64, negative_exponential
from lastcli.families.parts.deferred import deferred, deferred_parts
from lastcli.families.parts.leaves import expect_shape, layer_name
from lastcli.families.parts.storage import gather, pad_states, store

if TYPE_CHECKING:
    from lastcli.engine.protocol import Reduction
    from lastcli.engine.selective.system import S6HeadsSystem

__all__ = ["layer_of", "magnitudes", "rebuilt", "system_of"]


def layer_of(base: str, roles: Mapping[str, str], tensors: Tensors) -> Layer:
    """The layer, its shapes checked against those of `A_log` (h, p, N) and `dt_proj` (h, p, r)."""
    h, p, N = tensors[roles["A_log"]].shape
    rank, H, d = tensors[roles["dt_proj"]].shape[-1], tensors[roles["out_proj"]].shape[0], h * p
    shapes = {
        "D": (h, p), "in_proj": (2 * d, H), "in_bias": (2 * d,), "conv_bias": (d,), "dt_proj": (h, p, rank),
        "dt_bias": (h, p), "x_proj": (h, rank + 2 * N, p), "out_proj": (H, d), "out_bias": (H,),
    }  # fmt: skip
    for role, shape in shapes.items():
        if role in roles:
            expect_shape(tensors[roles[role]], shape)
    taps = tensors[roles["conv"]]
    expect_shape(taps, (d, 1, taps.shape[-1]), (d, taps.shape[-1]))
    return Layer(layer_name(base), N, h, dict(roles), infos={role: tensors[name] for role, name in roles.items()})


def system_of(layer: Layer, read: Read) -> S6HeadsSystem:
    """The mixer; large projections stay in float32 where they are stored in no wider type."""
    from lastcli.engine.selective.system import S6HeadsSystem

    names = layer.tensors

    def exact(role: str) -> Any:
        return read(names[role]).astype(np.float64) if role in names else None

    def apart(array: Any) -> Any:
        return None if array is None else np.concatenate([array[0::2], array[1::2]])

    def block(own: slice) -> Callable[[np.ndarray], np.ndarray]:
        return lambda array: array[:, own].astype(np.float64)

    rank, N = layer.infos["dt_proj"].shape[-1], layer.states
    blocks = {"step": slice(rank), "B": slice(rank, rank + N), "C": slice(rank + N, None)}
    rows = deferred_parts(read, layer, "x_proj", {key: block(own) for key, own in blocks.items()})
    conv = exact("conv")
    return S6HeadsSystem(
        out_proj=deferred(read, layer, "out_proj", at_least_float32),
        out_bias=exact("out_bias"),
        D=exact("D"),
        in_proj=deferred(read, layer, "in_proj", lambda array: apart(at_least_float32(array))),
        in_bias=apart(exact("in_bias")),
        conv=conv.reshape(len(conv), -1),
        conv_bias=exact("conv_bias"),
        to_step=rows["step"],
        to_B=rows["B"],
        to_C=rows["C"],
        step_proj=deferred(read, layer, "dt_proj", in_float64),
        step_bias=exact("dt_bias"),
        A=deferred(read, layer, "A_log", negative_exponential),
    )


def rebuilt(layer: Layer, read: Read, reduction: Reduction, size: int) -> dict[str, np.ndarray | None]:
    """An index of `A_log` and two rows of `x_proj_weight` a state and head; what was refitted is written over them."""
    names = layer.tensors
    needed = ("A_log", "x_proj", "dt_proj", *(() if reduction.changed == "none" else ("D", "out_proj")))
    stored = {role: read(names[role]) for role in needed}
    kept, reduced, N = np.asarray(reduction.kept), reduction.system, layer.states
    rank = stored["dt_proj"].shape[-1]
    step, B, C = np.split(stored["x_proj"], [rank, rank + N], axis=1)
    rows = {"B": gather(B, kept, size, state=1, group=0), "C": gather(C, kept, size, state=1, group=0)}
    new: dict[str, Any] = {"A_log": gather(stored["A_log"], kept, size, state=2, group=0)}
    if reduction.changed != "none":
        rows["C"] = store(pad_states(np.asarray(reduced.to_C), size, axis=1), stored["x_proj"], names["x_proj"])
        new["D"] = store(np.asarray(reduced.D), stored["D"], names["D"])
        new["out_proj"] = store(np.asarray(reduced.out_proj), stored["out_proj"], names["out_proj"])
    if reduction.changed == "all":
        rows["B"] = store(pad_states(np.asarray(reduced.to_B), size, axis=1), stored["x_proj"], names["x_proj"])
        new["A_log"] = store(pad_states(np.log(-np.asarray(reduced.A)), size, axis=2), stored["A_log"], names["A_log"])
    new["x_proj"] = np.concatenate([step, rows["B"], rows["C"]], axis=1)
    return {names[role]: array for role, array in new.items()}


def magnitudes(layer: Layer, read: Read) -> np.ndarray:
    """Sums of squares of an index of `A_log` and the rows of B and C, (h, N)."""
    rank, N = read(layer.tensors["dt_proj"]).shape[-1], layer.states
    rows = (read(layer.tensors["x_proj"]).astype(np.float64) ** 2).sum(axis=2)
    A_log = read(layer.tensors["A_log"]).astype(np.float64)
    return (A_log**2).sum(axis=1) + rows[:, rank : rank + N] + rows[:, rank + N :]
