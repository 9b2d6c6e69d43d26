"""aTENNuate (arXiv 2409.03377): diagonal MIMO layers with complex poles between real input and output maps.

Tensors of a layer, with m inputs, p outputs and N states, all real::

    log_dt (N,)     A (N, 2)     B (N, m)     C (p, N)

With dt = exp(log_dt) the poles are exp(dt·(-softplus(A[:, 0]) + i·A[:, 1])), the input map is dt·B, and the output is
C Re(x): one state of a conjugate pair, without a factor 2. C is real, so a refit keeps it real.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.families.attenuate.names import ROLES, find_denoiser, find_layers
from lastcli.families.base import Config, Family, Forward, Layer, Match, Read, Tensors
from lastcli.families.parts import multi_siso as ms
from lastcli.families.parts.leaves import expect_shape, layer_name, match_of
from lastcli.families.parts.storage import gather, pad_states, store

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["Attenuate"]

# role → the state axis of its tensor
_STATE_AXIS = {"log_dt": 0, "A": 0, "B": 0, "C": 1}


class Attenuate(Family):
    """Complex poles, real B and C."""

    name = "attenuate"
    title = "aTENNuate"
    help = "MIMO layers with real input and output maps, in a denoiser that folds time"
    source = "arXiv 2409.03377, github.com/Brainchip-Inc/aTENNuate"
    page = "docs/families/attenuate.md"
    axes = MappingProxyType({role: (None, axis) for role, axis in _STATE_AXIS.items()})

    def match(self, tensors: Tensors) -> Match:
        """Layers are the paths with a real A (N, 2) and a step for every state."""
        return match_of(
            self.name,
            (
                (prefix, len(roles), [role for role in ROLES if role not in roles])
                for prefix, roles in find_layers(tensors).items()
            ),
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """Nothing: the family has no options."""
        return {}

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """Every layer in running order, its shapes checked."""
        found = []
        for prefix, roles in find_layers(tensors).items():
            N = tensors[roles["A"]].shape[0]
            for role, shape in {"B": (N, -1), "C": (-1, N)}.items():
                info = tensors[roles[role]]
                other = info.shape[1 - _STATE_AXIS[role]] if len(info.shape) == 2 else 1
                expect_shape(info, tuple(other if n < 0 else n for n in shape))
            found.append(Layer(layer_name(prefix), N, 1, dict(roles)))
        return tuple(found)

    def refuses_moved_poles(self, layer: Layer, config: Config) -> str | None:
        """Moved poles come with a complex B."""
        return (
            f"{layer.name}: B and C are real, and poles that move need complex ones; use a method that keeps the "
            "poles, with a refit of the read-out."
        )

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """One group with all inputs and outputs; no D."""
        from lastcli.engine.system import DiagonalSystem

        log_dt, A, B, C = (read(layer.tensors[role]).astype(np.float64) for role in ROLES)
        dt = np.exp(log_dt)
        poles = np.exp(dt * (-ms.transform(A[:, 0], "softplus") + 1j * A[:, 1]))
        return DiagonalSystem(
            poles=poles[None],
            B=(dt[:, None] * B).astype(np.complex128)[None],
            C=C.astype(np.complex128)[None, None],
            fixed_poles=True,
            real_readout=True,
        )

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """The kept states of every tensor, and a new real C where a refit made one."""
        self.check_moved_poles(layer, config, reduction)
        kept = np.asarray(reduction.kept)
        new: dict[str, np.ndarray | None] = {
            layer.tensors[role]: gather(read(layer.tensors[role]), kept, size, state=axis)
            for role, axis in _STATE_AXIS.items()
        }
        if reduction.changed == "readout":
            C = np.asarray(reduction.system.C)[0, 0].real
            name = layer.tensors["C"]
            new[name] = store(pad_states(C, size), read(name), name)
        return new

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The published denoiser, where the whole of it is there."""
        model = find_denoiser(tensors, [layer.name for layer in layers])
        if model is None:
            return None
        from lastcli.families.attenuate.model import denoiser_forward

        return denoiser_forward(tensors, model)
