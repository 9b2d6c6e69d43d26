"""S4D as a stand-alone file (arXiv 2206.11893), the diagonal state space layer that is copied most.

Tensors of a layer (H channels, N stored states, half of N conjugate pairs)::

    kernel.C (H, N, 2) or (H, N) complex64      kernel.log_A_real, kernel.A_imag (H, N)
    kernel.log_dt (H,)                          D (H,)

There is no B. With a = -exp(log_A_real) + i·A_imag and dt = exp(log_dt) the kernel is
2·Re Σ C (exp(a·dt)-1)/a exp(k·a·dt), so the input map is 1 and the read-out carries the gain of the zero-order hold.
Copies without the `kernel.` level ("flat" names) are the same layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.families.base import Config, Family, Forward, Layer, Match, Read, Tensors
from lastcli.families.parts import multi_siso as ms
from lastcli.families.parts.discretise import continuous, discrete
from lastcli.families.parts.leaves import expect_shape, groups, match_of
from lastcli.families.parts.storage import as_complex, gather, store
from lastcli.families.s4.model import idle_options, model_forward
from lastcli.families.s4.models.sequence_names import proofs, sequence_options
from lastcli.families.s4.models.settled import settled_model

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["S4D"]

ROLES = ("C", "log_A_real", "A_imag", "log_dt")
# A kernel with one of these is another family's, whatever else it has.
FOREIGN = ("B", "P", "inv_dt")


class S4D(Family):
    """Stand-alone S4D: zero-order hold, B = 1, own poles in every channel."""

    name = "s4d"
    title = "S4D, stand-alone file"
    help = "diagonal multi-SISO layers of the one-file version"
    source = "arXiv 2206.11893, github.com/state-spaces/s4"
    page = "docs/families/s4d.md"
    input_layout = "bhl"
    options = sequence_options(mask_padding=False)
    axes = MappingProxyType(dict.fromkeys(("C", "log_A_real", "A_imag"), (0, 1)))

    def match(self, tensors: Tensors) -> Match:
        """Layers are found by `log_A_real`; a sibling B, P or inv_dt, or four axes in C, belong to S4."""
        return match_of(
            self.name,
            (
                (prefix, sum(role in leaves for role in ROLES), [role for role in ROLES if role not in leaves])
                for prefix, leaves in _kernels(tensors).items()
            ),
            ms.layer_of,
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """What the model around the layers shows."""
        return proofs(tensors, self.match(tensors).layers)

    def settled(self, tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
        """The norms and activations of the model around the layers."""
        return settled_model(tensors, self.match(tensors).layers)

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """Options of a model that this is not."""
        return idle_options(tensors, self.match(tensors).layers)

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """One `Layer` a kernel; every shape is checked against that of A_imag."""
        found = []
        for prefix, leaves in _kernels(tensors).items():
            roles = {role: leaves[role] for role in ROLES}
            H, N = ms.two_axes(tensors[roles["A_imag"]])
            expect_shape(tensors[roles["log_A_real"]], (H, N))
            expect_shape(tensors[roles["log_dt"]], (H,), (H, 1))
            C = tensors[roles["C"]]
            expect_shape(C, (H, N) if C.dtype.startswith("complex") else (H, N, 2))
            D = next((name for name in (ms.owner(prefix) + "D", prefix + "D") if name in tensors), None)
            if D is not None:
                expect_shape(tensors[D], (H,), (1, H))
                roles["D"] = D
            found.append(Layer(ms.layer_of(prefix), N, H, roles))
        return tuple(found)

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """B = 1; the hold's gain is part of C, as in the published kernel."""
        from lastcli.engine.system import DiagonalSystem

        poles, gain, _ = _discrete(layer, read)
        D = ms.feedthrough_of(read(layer.tensors["D"]) if "D" in layer.tensors else None, layer.sets)
        return DiagonalSystem(
            poles=poles,
            B=np.ones((*poles.shape, 1), complex),
            C=(as_complex(read(layer.tensors["C"])) * gain)[:, None, None, :],
            D=D,
            pairing=2,
            sets=layer.sets,
            feedthrough="none" if D is None else "dense",
            multi=True,
        )

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Gathers per channel; a computed read-out is divided by the hold's gain again."""
        names, stored = layer.tensors, {role: read(name) for role, name in layer.tensors.items()}
        kept, reduced = np.asarray(reduction.kept), reduction.system
        fills = {"C": 0.0, "log_A_real": float(np.log(ms.INERT_DECAY)), "A_imag": 0.0}
        new = {role: gather(stored[role], kept, size, state=1, group=0, fill=fill) for role, fill in fills.items()}
        count = kept.shape[1]
        if reduction.changed != "none":
            _, gain, dt = _discrete(layer, read)
            gain = np.take_along_axis(gain, kept, axis=1)
            if reduction.changed == "all":
                a = continuous("zoh", reduced.poles, dt)
                gain = discrete(np, "zoh", a, dt)[1]
                for role, values in {"log_A_real": ms.inverse_transform(-a.real, "exp"), "A_imag": a.imag}.items():
                    new[role][:, :count] = store(values, stored[role], names[role])
            C = reduced.C[:, 0, 0] * reduced.B[..., 0] / gain
            new["C"][:, :count] = store(C, stored["C"], names["C"])
            if "D" in stored and reduced.D is not None:
                new["D"] = ms.store_feedthrough(np.asarray(reduced.D), stored["D"], names["D"])
        return {names[role]: array for role, array in new.items()}

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The S4 repository's example model or that of its training code, as the names around the layers are."""
        return model_forward(tensors, config, layers)


def _kernels(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{prefix: {leaf: name}} of everything that looks like a stand-alone S4D kernel, complete or not."""
    found = {}
    for prefix, leaves in groups(tensors).items():
        foreign = any(leaf in leaves for leaf in FOREIGN)
        if "log_A_real" in leaves and not foreign and ("C" not in leaves or len(tensors[leaves["C"]].shape) < 4):
            found[prefix] = leaves
    return found


def _discrete(layer: Layer, read: Read) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poles and gains (H, N), and the step (H, 1), float64."""
    real, imag, log_dt = (read(layer.tensors[role]) for role in ("log_A_real", "A_imag", "log_dt"))
    dt = np.exp(log_dt.astype(np.float64)).reshape(-1, 1)
    poles, gain = discrete(np, "zoh", -ms.transform(real, "exp") + 1j * imag.astype(np.float64), dt)
    return poles, gain, dt
