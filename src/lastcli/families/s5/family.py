"""S5 (Smith, Warrington, Linderman, arXiv 2208.04933) as its flax code, LAST and AIRE-Prune store it."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, Match, Option, Tensors, task_option
from lastcli.families.equinox.names import EQUINOX_KEYS, EQUINOX_OPTIONS, equinox_lacks, find_equinox
from lastcli.families.parts.leaves import layer_name, match_of
from lastcli.families.s5.layers import S5Layers, candidates, check_shapes, is_joint, lacking
from lastcli.families.s5.names import find_wrapper

__all__ = ["S5"]


class S5(S5Layers):
    """Diagonal MIMO layers with learned step sizes, and the published classification and retrieval models."""

    name = "s5"
    title = "S5 (flax)"
    help = "diagonal MIMO layers with a learned step for every state"
    source = "arXiv 2208.04933, github.com/lindermanlab/S5"
    page = "docs/families/s5.md"
    spellings = MappingProxyType({"activation": ("activation_fn",)})
    options = (
        Option("discretization", str, "zoh", "how the layers are made discrete", ("zoh", "bilinear")),
        Option("conj_sym", bool, True, "each stored state stands for a conjugate pair"),
        Option("clip_eigs", bool, False, "real parts of the eigenvalues are clipped at -1e-4"),
        Option("bidirectional", bool, False, "a second read-out for the backward scan"),
        Option("activation", str, "half_glu1", "what follows a layer", ("full_glu", "half_glu1", "half_glu2", "gelu")),
        Option("prenorm", bool, True, "normalise before the layer instead of after the skip connection"),
        Option("norm", str, "batch", "normalisation", ("batch", "layer")),
        Option(
            "mode",
            str,
            "pool",
            "what the head sees: the mean over time, the last step, every step",
            ("pool", "last", "sequence"),
        ),
        task_option("classification", "retrieval", help="what the head does"),
        Option("step_rescale", float, 1.0, "factor on all step sizes"),
        *EQUINOX_OPTIONS,
    )

    def match(self, tensors: Tensors) -> Match:
        """Layers are the paths with one-dimensional `Lambda_re` and `Lambda_im` or most of their companions."""
        return match_of(
            self.name,
            ((prefix, len(roles), lacking(roles)) for prefix, roles in candidates(tensors).items()),
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """Direction from the read-outs; norm, activation and task from the tensors around the layers."""
        proven: dict[str, Any] = {}
        for roles in candidates(tensors).values():
            if "C2" in roles:
                proven["bidirectional"] = True
            elif "C" in roles and "Lambda_re" in roles:
                proven["bidirectional"] = is_joint(roles, tensors)
        wrapper = find_wrapper(tensors)
        return proven | (wrapper.proves() if wrapper is not None else {})

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """What only the other model leaves open."""
        equinox = find_equinox(tensors, list(candidates(tensors))) is not None
        return frozenset({"activation", "prenorm", "mode"}) if equinox else EQUINOX_KEYS

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """Every S5 layer, its shapes checked against each other and against the description."""
        found = []
        for prefix, roles in candidates(tensors).items():
            name = layer_name(prefix)
            states = check_shapes(roles, tensors)
            bidirectional = "C2" in roles or is_joint(roles, tensors)
            if bidirectional != config["bidirectional"]:
                raise UnsupportedModelError(
                    f"{name}: its read-out is {'bidirectional' if bidirectional else 'for one direction'}, but the "
                    f"model description says bidirectional={str(config['bidirectional']).lower()}; correct it or "
                    "leave it out."
                )
            found.append(Layer(name, states, 1, dict(roles)))
        roots = {layer.name.rpartition("layers_")[0] for layer in found if "layers_" in layer.name}
        if len(roots) > 1:
            raise UnsupportedModelError(
                f"The checkpoint holds {len(roots)} models ({', '.join(sorted(root or '.' for root in roots))}); "
                "save the one to be reduced in a file of its own."
            )
        return tuple(found)

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The published model, where the tensors around the layers are those of the flax code or the equinox model."""
        wrapper = find_wrapper(tensors)
        if wrapper is not None:
            return wrapper.forward(config, layers)
        from lastcli.families.equinox.model import equinox_forward

        return equinox_forward(tensors, config, layers)

    def lacks(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> str | None:
        """The statistics of the equinox model's norms, where only they are missing."""
        return equinox_lacks(tensors, config, layers)
