"""Mamba 2's tensors and an `SSDSystem`, either way.

`in_proj` has the rows [z (d); x (d); B (G·N); C (G·N); dt (heads)], `conv1d` the channels [x; B; C].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError, UsageError
from lastcli.families.base import Config, Layer, Read, Tensors
from lastcli.families.mamba.s6 import at_least_float32, in_float64
from lastcli.families.parts.deferred import deferred, deferred_parts
from lastcli.families.parts.leaves import expect_shape, layer_name
from lastcli.families.parts.storage import gather, store

if TYPE_CHECKING:
    from lastcli.engine.protocol import Reduction
    from lastcli.engine.selective.system import SSDSystem

__all__ = ["layer_of", "magnitudes", "rebuilt", "system_of"]


_BLOCKS = ("z", "x", "B", "C", "dt")


@dataclass(frozen=True)
class _Sizes:
    """d channels, G groups of N states, heads."""

    d: int
    G: int
    N: int
    heads: int

    @property
    def blocks(self) -> tuple[int, ...]:
        """Rows of z, x, B, C and dt."""
        return (self.d, self.d, self.G * self.N, self.G * self.N, self.heads)

    def parts(self, array: np.ndarray, *, conv: bool = False) -> dict[str, np.ndarray]:
        """The blocks of `in_proj` or of `conv1d`, by name."""
        blocks = self.blocks[1:4] if conv else self.blocks
        cut = np.split(array, np.cumsum(blocks)[:-1])
        return dict(zip(_BLOCKS[1:4] if conv else _BLOCKS, cut))


def layer_of(base: str, roles: Mapping[str, str], tensors: Tensors, groups: int) -> Layer:
    """The layer, its shapes checked.

    Raises:
        UnsupportedModelError: the rows of `in_proj` do not come out.
    """
    H, d = tensors[roles["out_proj"]].shape
    (heads,) = tensors[roles["A_log"]].shape
    rows = tensors[roles["in_proj"]].shape[0]
    both = rows - 2 * d - heads
    if both <= 0 or both % (2 * groups) or d % heads or heads % groups:
        raise UnsupportedModelError(
            f"Tensor {roles['in_proj']} has {rows} rows; with {d} channels, {heads} heads and {groups} groups the rest "
            "does not divide into B and C; say how many groups there are with --set groups=G."
        )
    N = both // (2 * groups)
    conv = d + 2 * groups * N
    taps = tensors[roles["conv"]].shape[-1]
    shapes = {
        "in_proj": ((rows, H),), "in_bias": ((rows,),), "conv": ((conv, 1, taps), (conv, taps)),
        "conv_bias": ((conv,),), "dt_bias": ((heads,),), "D": ((heads,), (d,)), "norm": ((d,),), "out_bias": ((H,),),
    }  # fmt: skip
    for role, allowed in shapes.items():
        if role in roles:
            expect_shape(tensors[roles[role]], *allowed)
    return Layer(layer_name(base), N, groups, dict(roles), infos={role: tensors[name] for role, name in roles.items()})


def _scales(config: Config, role: str) -> dict[str, float]:
    """What the model multiplies the blocks of `in_proj` or of its bias by, by name."""
    each = [float(scale) for scale in str(config["row_scales"]).split(",")]
    if len(each) != len(_BLOCKS):
        raise UsageError(f"row_scales has {len(each)} numbers; it takes one each for z, x, B, C and the step.")
    common = config["input_scale"] if role == "in_proj" else 1.0
    return {block: common * scale for block, scale in zip(_BLOCKS, each)}


def _sizes(layer: Layer, read: Read) -> _Sizes:
    """From the small tensors of a layer."""
    G, N = layer.sets, layer.states
    return _Sizes(len(read(layer.tensors["conv"])) - 2 * G * N, G, N, len(read(layer.tensors["A_log"])))


def system_of(layer: Layer, config: Config, read: Read) -> SSDSystem:
    """The mixer, its projection and convolution taken apart; large blocks stay in float32."""
    from lastcli.engine.selective.system import SSDSystem

    names, sizes = layer.tensors, _sizes(layer, read)

    def exact(role: str) -> Any:
        return None if role not in names else read(names[role]).astype(np.float64)

    def block_of(role: str, block: str) -> Callable[[np.ndarray], np.ndarray]:
        """From the stored tensor to one of its blocks; B and C in float64, (G, N, ...)."""
        conv = role.startswith("conv")
        scale = 1.0 if conv else _scales(config, role)[block]

        def made(array: np.ndarray) -> np.ndarray:
            rows = at_least_float32(sizes.parts(array, conv=conv)[block])
            rows = rows if scale == 1 else rows * scale
            whole = () if rows.ndim == 1 else (-1,)
            if block in ("B", "C"):
                return in_float64(rows).reshape(sizes.G, sizes.N, *whole)
            return rows.reshape(len(rows), *whole)

        return made

    def apart(role: str) -> dict[str, Any]:
        blocks = _BLOCKS[1:4] if role.startswith("conv") else _BLOCKS
        if role not in names:
            return dict.fromkeys(blocks)
        return deferred_parts(read, layer, role, {block: block_of(role, block) for block in blocks})

    rows, bias, taps, taps_bias = (apart(role) for role in ("in_proj", "in_bias", "conv", "conv_bias"))
    low, high = (float(limit) for limit in str(config["step_limits"]).split(","))
    return SSDSystem(
        out_proj=deferred(read, layer, "out_proj", at_least_float32),
        out_bias=exact("out_bias"),
        D=exact("D"),
        to_z=rows["z"],
        to_x=rows["x"],
        to_B=rows["B"],
        to_C=rows["C"],
        to_step=rows["dt"],
        z_bias=bias["z"],
        x_bias=bias["x"],
        B_bias=bias["B"],
        C_bias=bias["C"],
        dt_bias=bias["dt"],
        conv_x=taps["x"],
        conv_B=taps["B"],
        conv_C=taps["C"],
        conv_x_bias=taps_bias["x"],
        conv_B_bias=taps_bias["B"],
        conv_C_bias=taps_bias["C"],
        step_bias=exact("dt_bias"),
        A=-np.exp(exact("A_log")),
        norm=exact("norm"),
        norm_eps=config["norm_eps"],
        norm_groups=sizes.G,
        norm_first=config["norm_before_gate"],
        step_limits=(low, high),
    )


def rebuilt(layer: Layer, config: Config, read: Read, reduction: Reduction, size: int) -> dict[str, np.ndarray | None]:
    """A row of B and one of C in `in_proj`, two channels of `conv1d` a state; what was fitted is written over them.

    An inert state has zero rows, taps and biases, so its B and C are silu(0) = 0.
    """
    names, sizes, kept = layer.tensors, _sizes(layer, read), np.asarray(reduction.kept)
    reduced = reduction.system
    fitted = {
        "in_proj": ("to_B", "to_C"),
        "in_bias": ("B_bias", "C_bias"),
        "conv": ("conv_B", "conv_C"),
        "conv_bias": ("conv_B_bias", "conv_C_bias"),
    }
    new: dict[str, Any] = {}
    for role, fields in fitted.items():
        if role not in names:
            continue
        array = read(names[role])
        parts = sizes.parts(array, conv=role.startswith("conv"))
        for block, field in zip(("B", "C"), fields):
            grouped = parts[block].reshape(sizes.G, sizes.N, *array.shape[1:])
            picked = gather(grouped, kept, size, state=1, group=0)
            if reduction.changed == "all":
                values = np.asarray(getattr(reduced, field)).reshape(sizes.G, kept.shape[1], *array.shape[1:])
                if not role.startswith("conv"):
                    values = values / _scales(config, role)[block]
                picked[:, : kept.shape[1]] = store(values, array, names[role])
            parts[block] = picked.reshape(sizes.G * size, *array.shape[1:])
        new[role] = np.concatenate(list(parts.values()))
    if reduction.changed != "none":
        for role in ("D", "out_proj"):
            array = read(names[role])
            new[role] = store(np.asarray(getattr(reduced, role)).reshape(array.shape), array, names[role])
    return {names[role]: array for role, array in new.items()}


def magnitudes(layer: Layer, read: Read) -> np.ndarray:
    """Sums of squares of the rows of B and C and of their taps and biases, (G, N)."""
    sizes, total = _sizes(layer, read), np.zeros((layer.sets, layer.states))
    for role in ("in_proj", "in_bias", "conv", "conv_bias"):
        if role in layer.tensors:
            parts = sizes.parts(read(layer.tensors[role]), conv=role.startswith("conv"))
            for block in ("B", "C"):
                total += (in_float64(parts[block]).reshape(layer.sets, layer.states, -1) ** 2).sum(axis=2)
    return total
