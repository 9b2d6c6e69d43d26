"""Tensors that hold whole numbers in place of weights, with the factor that turns them back beside them."""

from __future__ import annotations

from lastcli.containers.base import TensorInfo
from lastcli.families.base import Tensors

__all__ = ["scale_of"]

_SHORT = ("int8", "uint8", "int4", "uint4")
_SUFFIXES = ("_scale", "_scales", "_scale_inv", ".scale", "/scale")


def scale_of(info: TensorInfo, tensors: Tensors) -> str | None:
    """The tensor beside a quantised one that scales it ("weight_scale" beside "weight"); None for a plain tensor.

    Whether there is a zero point, along which axis the scale goes and how the bits are packed differ from tool to tool,
    so nothing is scaled back here.
    """
    if info.dtype not in _SHORT and not info.dtype.startswith("float8"):
        return None
    return next((info.name + suffix for suffix in _SUFFIXES if info.name + suffix in tensors), None)
