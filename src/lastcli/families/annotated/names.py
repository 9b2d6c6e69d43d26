"""How the annotated S4 spells its layers, and what the three kinds of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lastcli.families.annotated.model import stacked_forward
from lastcli.families.base import Config, Family, Forward, Layer, Match, Tensors
from lastcli.families.parts.leaves import expect_shape, groups, layer_name, match_of
from lastcli.families.parts.multi_siso import two_axes

__all__ = ["Annotated"]

_DECODING = ("cache/", "prime/")


class Annotated(Family):
    """What the three layers share: names, shapes and the model around them."""

    marks: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def match(self, tensors: Tensors) -> Match:
        """Layers are the paths with the layer's own two-dimensional poles."""
        roles = (*self.marks, "log_step")
        return match_of(
            self.name,
            (
                (prefix, sum(role in leaves for role in roles), [role for role in roles if role not in leaves])
                for prefix, leaves in self._candidates(tensors).items()
            ),
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """Nothing: the options are those of the kernel and of the model around the layers."""
        return {}

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """One `Layer` a path, with its decoding collections, every shape checked."""
        found = []
        for prefix, leaves in self._candidates(tensors).items():
            roles = {role: leaves[role] for role in (*self.marks, "log_step", "D") if role in leaves}
            N, H = two_axes(tensors[roles[self.marks[0]]])
            for role, name in roles.items():
                pair = () if tensors[name].dtype.startswith("complex") else (2,)
                shapes = {"C": (N, H, *pair), "W": (1, H, N, *pair), "log_step": (1, H), "D": (1, H)}
                expect_shape(tensors[name], shapes.get(role, (N, H)))
            # "params/layers_0/seq/" → "layers_0/seq/", under each of the other collections.
            inside = prefix.split("params/", 1)[-1]
            decoding = [n for n in tensors if n.startswith(_DECODING) and inside and f"/{inside}" in f"/{n}"]
            roles |= {f"decoding {i}": name for i, name in enumerate(decoding)}
            found.append(Layer(layer_name(prefix), N, H, roles))
        return tuple(found)

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The annotated S4's stacked model."""
        return stacked_forward(tensors, config, layers)

    def _candidates(self, tensors: Tensors) -> dict[str, dict[str, str]]:
        found = {}
        for prefix, leaves in groups(tensors).items():
            own = self.marks[0] in leaves and len(tensors[leaves[self.marks[0]]].shape) == 2
            if own and not prefix.startswith(_DECODING) and not any(role in leaves for role in self.absent):
                found[prefix] = leaves
        return found
