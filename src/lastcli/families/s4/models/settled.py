"""What "auto" stands for in the models around S4, S4D and DSS layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lastcli.families.base import Tensors
from lastcli.families.s4.models.sequence_names import find_sequence_model, gated_output

__all__ = ["NORM_KINDS", "settled_model"]

# What the norms store → the kinds that store it, the first is assumed.
NORM_KINDS = {
    "scalar": ("layer", "scalar"),
    "batch": ("batch",),
    "affine": ("layer", "group", "instance"),
    "bare": ("none", "instance", "group", "layer"),
}


def settled_model(tensors: Tensors, layers: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """The kind of the norms and the activation after the output maps, as `Family.settled` returns them.

    An activation that differs from block to block, or that no shape tells, is left open.

    Args:
        layers: names of the state space layers.
    """
    model = find_sequence_model(tensors, layers)
    if model is None:
        return {}
    kinds = NORM_KINDS[model.stored_norm]
    settled: dict[str, tuple[Any, str]] = {
        "norm": (kinds[0], "tensors" if model.stored_norm in ("scalar", "batch") else "assumed")
    }
    maps = [block for block in model.blocks if block.output and block.hidden is None]
    gated = {gated_output(block, model) for block in maps}
    if gated == {True}:
        settled["postact"] = ("glu", "assumed")
    elif gated == {False} and not any(block.output and block.output.activated for block in maps):
        settled["postact"] = ("none", "assumed")
    return settled
