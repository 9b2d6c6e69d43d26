"""An input of a layer as torch, JAX or NumPy holds it, as (sequences, steps, features) NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from lastcli.errors import UsageError

__all__ = ["LAYOUTS", "as_mask", "as_sequences", "layer_width"]

# Axes of an input: b sequences, l steps, h features.
LAYOUTS = ("blh", "bhl", "lbh", "lh", "hl")


def layer_width(system: Any) -> int:
    """H, the features a step of the layer's input has: one a group where it is multi-SISO."""
    return int(system.groups if system.multi else system.inputs)


def as_sequences(u: Any, width: int, layout: str | None, where: str) -> np.ndarray:
    """(n, L, H) float32 or float64, whatever order its axes come in.

    Args:
        u: a NumPy or JAX array or a torch tensor of two axes (one sequence) or three.
        width: H.
        layout: one of `LAYOUTS`; where None, the only axis of size H that can be the features tells it.
        where: how messages name it.

    Raises:
        UsageError: a traced or complex value, other axes, or an order that the shape does not tell.
    """
    array = _as_numpy(u, where)
    if array.ndim not in (2, 3):
        raise UsageError(f"{where}: its input has shape {array.shape}; (n, L, {width}) or (L, {width}) is needed.")
    if layout is None or len(layout) != array.ndim:
        layout = _told(array.shape, width, where, layout)
    if array.shape[layout.index("h")] != width:
        raise UsageError(
            f"{where}: its input has shape {array.shape}, in which {layout} names {array.shape[layout.index('h')]} "
            f"features; the checkpoint's layer takes {width}."
        )
    array = array if "b" in layout else array[None]
    order = layout if "b" in layout else f"b{layout}"
    return np.ascontiguousarray(array.transpose([order.index(axis) for axis in "blh"]))


def _told(shape: tuple[int, ...], width: int, where: str, layout: str | None) -> str:
    if layout is not None and len(shape) == 2:  # one sequence of a model whose batches are in that order
        return layout.replace("b", "")
    if layout is not None:
        raise UsageError(f"{where}: its input has shape {shape}, which is not laid out as {layout}.")
    choices = ("lh", "hl") if len(shape) == 2 else ("blh", "bhl")
    fitting = [choice for choice in choices if shape[choice.index("h")] == width]
    if not fitting:
        raise UsageError(
            f"{where}: its input has shape {shape}, and the checkpoint's layer takes {width} features; it is another "
            "model's, or something else than the layer's input."
        )
    if len(fitting) > 1:
        raise UsageError(
            f"{where}: its input has shape {shape}, which does not tell steps from features; say which with "
            f"layout={choices[0]!r} or layout={choices[1]!r}."
        )
    return fitting[0]


def _as_numpy(u: Any, where: str) -> np.ndarray:
    if hasattr(u, "detach"):
        u = u.detach()
        u = u if str(u.dtype) in ("torch.float32", "torch.float64") or u.is_complex() else u.float()
        u = u.cpu().numpy()
    elif type(u).__module__.startswith("jax"):
        import jax

        if isinstance(u, jax.core.Tracer):
            raise UsageError(
                f"{where}: its input is traced by jax.jit or jax.vmap and has no values yet; return it from the "
                "transformed function (flax: sow it) and record what comes out."
            )
    array = np.asarray(u)
    if array.dtype.kind == "c" or array.dtype.kind == "O":
        raise UsageError(f"{where}: its input has dtype {array.dtype}; real numbers are needed.")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def as_mask(shape: tuple[int, int], lengths: Any, mask: Any, where: str) -> np.ndarray | None:
    """(n, L) bool, the steps that are no padding; None where every one is.

    Raises:
        UsageError: both given, or of another shape, or lengths beyond the steps.
    """
    n, steps = shape
    if lengths is not None and mask is not None:
        raise UsageError(f"{where}: give lengths or a mask, not both.")
    if lengths is not None:
        lengths = np.atleast_1d(_as_whole(lengths))
        if lengths.shape != (n,) or lengths.dtype.kind not in "iu" or lengths.min() < 0 or lengths.max() > steps:
            raise UsageError(
                f"{where}: lengths must be {n} whole numbers of 0 to {steps}, one a sequence of its input, and are "
                f"{lengths.dtype} of shape {lengths.shape}"
                + (f", from {lengths.min()} to {lengths.max()}." if lengths.size else ".")
            )
        return np.arange(steps) < lengths[:, None]
    if mask is None:
        return None
    mask = np.atleast_2d(_as_whole(mask))
    if mask.shape != (n, steps):
        raise UsageError(f"{where}: the mask has shape {mask.shape}; its input needs {(n, steps)}.")
    return mask.astype(bool)


def _as_whole(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)
