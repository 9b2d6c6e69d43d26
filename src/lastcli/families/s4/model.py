"""The models that S4, S4D and DSS layers are found in: the S4 repository's example, and its training code's model."""

from __future__ import annotations

from collections.abc import Sequence

from lastcli.families.base import Config, Forward, Layer, Tensors
from lastcli.families.s4.models.example import EXAMPLE_OPTIONS, example_blocks, example_forward
from lastcli.families.s4.models.sequence_names import find_sequence_model, sequence_options

__all__ = ["idle_options", "model_forward"]

_EXAMPLE = frozenset(option.key for option in EXAMPLE_OPTIONS)
_ALL = frozenset(option.key for option in sequence_options(mask_padding=False))


def model_forward(tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
    """The model that the names around the layers are those of, or None.

    Raises:
        UnsupportedModelError: the description contradicts the tensors, or asks for what the published code lacks.
    """
    known = example_forward(tensors, config, layers)
    if known is not None:
        return known
    from lastcli.families.s4.models.sequence import sequence_forward

    return sequence_forward(tensors, config, layers)


def idle_options(tensors: Tensors, names: Sequence[str]) -> frozenset[str]:
    """Options of the models that say nothing about this one, whose layers have these names."""
    if example_blocks(tensors, names) is not None:
        return _ALL - _EXAMPLE
    model = find_sequence_model(tensors, names)
    if model is None:
        return _ALL
    idle = set() if model.ends.retrieval else {"head_activation"}
    if not any(block.hidden for block in model.blocks):
        idle.add("ff_activation")
    if not any(block.output and block.hidden is None for block in model.blocks):
        idle.add("postact")
    return frozenset(idle)
