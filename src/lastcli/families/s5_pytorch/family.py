"""s5-pytorch (github.com/i404788/s5-pytorch): S5 layers in PyTorch, and its transformer-style blocks.

Names of a layer: `Lambda` (P,) complex, `B` (P, H, 2) real, `C` (H, P) complex, twice as wide with the forward half
first where bidirectional, `log_step` (P,), `D` (H,). The whole spectrum is stored; the output is the real part, without
a factor 2. The code's `liquid` and `degree` variants have the same tensors but are not linear; they are not told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from lastcli.families.base import Config, Forward, Layer, Match, Option, Tensors
from lastcli.families.parts.leaves import layer_name, match_of
from lastcli.families.s5.layers import S5Layers
from lastcli.families.s5_pytorch.model import sequence_model
from lastcli.families.s5_pytorch.names import ROLES, block_of, candidates, check_shapes

__all__ = ["S5Pytorch"]


class S5Pytorch(S5Layers):
    """S5 layers with their whole spectrum in native complex numbers, alone or in the published blocks."""

    name = "s5_pytorch"
    title = "s5-pytorch"
    help = "S5 layers in PyTorch, the whole spectrum stored"
    source = "github.com/i404788/s5-pytorch"
    page = "docs/families/s5_pytorch.md"
    spellings = MappingProxyType({"bidirectional": ("bidir",)})
    options = (
        Option("discretization", str, "zoh", "how the layers are made discrete", ("zoh", "bilinear")),
        Option("bidirectional", bool, False, "a second read-out for the backward scan"),
        Option("step_rescale", float, 1.0, "factor on all step sizes (`step_scale` of the code)"),
    )

    def match(self, tensors: Tensors) -> Match:
        """Layers are the paths with a one-dimensional `Lambda` beside `log_step`, `B` or `C`."""
        return match_of(
            self.name,
            (
                (prefix, len(roles), [role for role in ROLES if role not in roles])
                for prefix, roles in candidates(tensors).items()
            ),
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """The direction, from the width of the read-out."""
        proven = {}
        for roles in candidates(tensors).values():
            if "C" in roles:
                states = tensors[roles["Lambda"]].shape[0]
                proven["bidirectional"] = tensors[roles["C"]].shape[-1] == 2 * states
        return proven

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """Every layer in running order, its shapes checked."""
        return tuple(
            Layer(layer_name(prefix), check_shapes(roles, tensors, config), 1, dict(roles))
            for prefix, roles in candidates(tensors).items()
        )

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """A single layer, or a stack of published blocks with nothing else around them."""
        prefixes = [layer.tensors["Lambda"].removesuffix("Lambda") for layer in layers]
        others = set(tensors) - {name for layer in layers for name in layer.tensors.values()}
        if len(layers) == 1 and not others:
            return sequence_model(tensors, layers, [{}])
        blocks = [block for prefix in prefixes if (block := block_of(prefix, tensors)) is not None]
        if len(blocks) < len(layers) or others != {name for block in blocks for name in block.values()}:
            return None
        return sequence_model(tensors, layers, blocks)
