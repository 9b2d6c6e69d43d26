"""Mamba 1's tensors and an `S6System`, either way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.families.base import Layer, Read, Tensors
from lastcli.families.mamba.names import MIXER_NORMS
from lastcli.families.parts.deferred import deferred, deferred_parts
from lastcli.families.parts.leaves import expect_shape, layer_name
from lastcli.families.parts.storage import gather, pad_states, store

if TYPE_CHECKING:
    from lastcli.engine.protocol import Reduction
    from lastcli.engine.selective.system import S6System

__all__ = [
    "at_least_float32",
    "in_float64",
    "layer_of",
    "magnitudes",
    "negative_exponential",
    "rebuilt",
    "system_of",
]


def layer_of(base: str, roles: Mapping[str, str], tensors: Tensors) -> Layer:
    """The layer, its shapes checked against those of `A_log` (d, N) and `dt_proj` (d, r)."""
    d, N = tensors[roles["A_log"]].shape
    rank = tensors[roles["dt_proj"]].shape[-1]
    H = tensors[roles["out_proj"]].shape[0]
    shapes = {
        "D": (d,), "in_proj": (2 * d, H), "in_bias": (2 * d,), "conv_bias": (d,), "dt_proj": (d, rank),
        "dt_bias": (d,), "x_proj": (rank + 2 * N, d), "out_proj": (H, d), "out_bias": (H,),
        "step_norm": (rank,), "B_norm": (N,), "C_norm": (N,),
    }  # fmt: skip
    for role, shape in shapes.items():
        if role in roles:
            expect_shape(tensors[roles[role]], shape)
    taps = tensors[roles["conv"]]
    expect_shape(taps, (d, 1, taps.shape[-1]), (d, taps.shape[-1]))
    return Layer(layer_name(base), N, 1, dict(roles), infos={role: tensors[name] for role, name in roles.items()})


def system_of(layer: Layer, read: Read, inner_norms: bool, inner_eps: float) -> S6System:
    """The mixer; large projections stay in float32 where they are stored in no wider type."""
    from lastcli.engine.selective.system import S6System

    names = layer.tensors

    def exact(role: str) -> Any:
        return read(names[role]).astype(np.float64) if role in names else None

    def large(role: str) -> Any:
        return deferred(read, layer, role, at_least_float32)

    rank, N = layer.infos["dt_proj"].shape[1], layer.states
    blocks = {"step": slice(rank), "B": slice(rank, rank + N), "C": slice(rank + N, None)}
    rows = deferred_parts(read, layer, "x_proj", {key: _block(own) for key, own in blocks.items()})
    norms: dict[str, Any] = {role: exact(role) for role in MIXER_NORMS}
    if inner_norms and norms["B_norm"] is None:
        norms = {"step_norm": np.ones(rank), "B_norm": np.ones(N), "C_norm": np.ones(N)}
    d = rows["step"].shape[1]
    return S6System(
        out_proj=large("out_proj"),
        out_bias=exact("out_bias"),
        D=exact("D"),
        in_proj=large("in_proj"),
        in_bias=exact("in_bias"),
        conv=exact("conv").reshape(d, -1),
        conv_bias=exact("conv_bias"),
        to_step=rows["step"],
        to_B=rows["B"],
        to_C=rows["C"],
        step_proj=deferred(read, layer, "dt_proj", in_float64),
        step_bias=exact("dt_bias"),
        A=deferred(read, layer, "A_log", negative_exponential),
        norm_eps=inner_eps,
        **norms,
    )


def at_least_float32(array: np.ndarray) -> np.ndarray:
    """In float32, or float64 where it is stored so."""
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32, copy=False)


def in_float64(array: np.ndarray) -> np.ndarray:
    """In float64."""
    return array.astype(np.float64)


def negative_exponential(A_log: np.ndarray) -> np.ndarray:
    """A = -exp(A_log), in float64."""
    return -np.exp(A_log.astype(np.float64))


def _block(rows: slice) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array[rows].astype(np.float64)


def rebuilt(layer: Layer, read: Read, reduction: Reduction, size: int) -> dict[str, np.ndarray | None]:
    """A column of `A_log` and two rows of `x_proj` a state; the rows of C, D and `out_proj` where they were refitted.

    An inert state has B = C = 0, and A = -1 so that it is finite.
    """
    names = layer.tensors
    needed = {
        "A_log",
        "x_proj",
        "dt_proj",
        "D",
        "B_norm",
        "C_norm",
        *(() if reduction.changed == "none" else ("out_proj",)),
    }
    stored = {role: read(name) for role, name in names.items() if role in needed}
    kept, reduced, N = np.asarray(reduction.kept), reduction.system, layer.states
    rank = stored["dt_proj"].shape[1]
    new: dict[str, Any] = {"A_log": gather(stored["A_log"], kept, size, state=1)}
    rows = {"step": stored["x_proj"][:rank]}
    for block, start in (("B", rank), ("C", rank + N)):
        rows[block] = gather(stored["x_proj"][start : start + N], kept, size, state=0)
    for role in ("B_norm", "C_norm"):
        if role in stored:
            new[role] = gather(stored[role], kept, size, state=0)
    if reduction.changed != "none":
        x_proj = names["x_proj"]
        rows["C"] = store(pad_states(np.asarray(reduced.to_C), size, axis=0), stored["x_proj"], x_proj)
        new["D"] = store(np.asarray(reduced.D), stored["D"], names["D"])
        new["out_proj"] = store(np.asarray(reduced.out_proj), stored["out_proj"], names["out_proj"])
    if reduction.changed == "all":
        rows["B"] = store(pad_states(np.asarray(reduced.to_B), size, axis=0), stored["x_proj"], names["x_proj"])
        if not np.array_equal(reduced.A, -np.exp(stored["A_log"].astype(np.float64))[:, kept[0]]):
            moved = pad_states(np.log(-np.asarray(reduced.A)), size, axis=1)
            new["A_log"] = store(moved, stored["A_log"], names["A_log"])
    new["x_proj"] = np.concatenate([rows["step"], rows["B"], rows["C"]])
    return {names[role]: array for role, array in new.items()}


def magnitudes(layer: Layer, read: Read) -> np.ndarray:
    """Sums of squares of a column of `A_log` and the rows of B and C, (1, N)."""
    rank, N = read(layer.tensors["dt_proj"]).shape[1], layer.states
    rows = (read(layer.tensors["x_proj"]).astype(np.float64) ** 2).sum(axis=1)
    A_log = read(layer.tensors["A_log"]).astype(np.float64)
    return ((A_log**2).sum(axis=0) + rows[rank : rank + N] + rows[rank + N :])[None]
