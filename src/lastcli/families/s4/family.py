"""S4 of the state-spaces repository with a diagonal kernel (S4D inside the S4 code; arXiv 2111.00396, 2206.11893).

Tensors of a layer, with H channels, N stored states (half of N conjugate pairs), S independent copies of the poles, and
`ch` read-outs (heads, twice as many in a bidirectional layer)::

    kernel.A_real, kernel.A_imag (S, N)     kernel.B (1, S, N, 2)     kernel.C (ch, H, N, 2)
    kernel.inv_dt (H, 1) or (H, N)          D (heads, H)

Channel h takes the poles of copy h % S; with S < H the poles are tied and all channels of a copy share one set of kept
states. Older versions spell the same tensors differently: see `s4_names`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, Match, Option, Read, Tensors
from lastcli.families.parts import multi_siso as ms
from lastcli.families.parts.leaves import match_of
from lastcli.families.parts.storage import gather, pad_states, store
from lastcli.families.parts.two_sided import split_modes
from lastcli.families.s4.kernel import (
    input_map,
    is_real_valued,
    pairing_of,
    read_outs,
    state_axes,
    store_read_outs,
    to_continuous,
    to_discrete,
    unfold,
    write_poles,
)
from lastcli.families.s4.model import idle_options, model_forward
from lastcli.families.s4.models.sequence_names import find_sequence_model, proofs, sequence_options
from lastcli.families.s4.models.settled import settled_model
from lastcli.families.s4.names import (
    S4_OPTIONS,
    audible,
    check_shapes,
    find_kernels,
    masks_padding,
    parameter_of,
    poles_of,
    proves_bidirectional,
    relu_floor,
    steps_of,
)
from lastcli.families.s4.to_s4d import Convertible

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["S4", "S4Names"]


class S4Names(Convertible):
    """Names, options and shapes that the diagonal and the low-rank kernels of the S4 repository share."""

    low_rank = False

    def match(self, tensors: Tensors) -> Match:
        """Kernels of the repository's own names; a `P` tells the low-rank ones from the diagonal ones."""
        own = (kernel for kernel in find_kernels(tensors) if kernel.low_rank == self.low_rank)
        return match_of(self.name, ((kernel.prefix, len(kernel.roles), kernel.missing) for kernel in own), ms.layer_of)

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """Direction, from the rows of C against those of D; and what the model around the layers shows."""
        kernels = [k for k in find_kernels(tensors) if k.low_rank == self.low_rank and not k.missing]
        directions = {proves_bidirectional(k, tensors) for k in kernels} - {None}
        names = [k.name for k in kernels]
        proven = proofs(tensors, names)
        # V4 masks padding, V1 and V2 do not; V3 came to.
        masks = {masks_padding(k) for k in kernels}
        if len(masks) == 1 and None not in masks and find_sequence_model(tensors, names):
            proven["mask_padding"] = masks.pop()
        return proven | ({"bidirectional": directions.pop()} if len(directions) == 1 else {})

    def settled(self, tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
        """The norms and activations of the model around the layers."""
        return settled_model(tensors, self.match(tensors).layers)

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """Options of a model that this is not."""
        return idle_options(tensors, self.match(tensors).layers)

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """One `Layer` a kernel, its shapes checked against each other and against the description."""
        found = []
        for kernel in find_kernels(tensors):
            if kernel.low_rank != self.low_rank:
                continue
            H, N, S, rows = check_shapes(kernel, tensors)
            if proves_bidirectional(kernel, tensors) not in (None, config["bidirectional"]) or (
                config["bidirectional"] and rows % 2
            ):
                raise UnsupportedModelError(
                    f"{kernel.name}: {kernel.roles['C']} has {rows} read-outs, which contradicts "
                    f"bidirectional={str(config['bidirectional']).lower()} in the model description."
                )
            found.append(Layer(kernel.name, N, H if self.low_rank else S, dict(kernel.roles)))
        return tuple(found)

    def refuses_moved_poles(self, layer: Layer, config: Config) -> str | None:
        """A bidirectional layer has one pole for two modes of its diagonal system (`parts.two_sided`)."""
        if not config["bidirectional"]:
            return None
        return (
            f"{layer.name}: a method that moves the poles cannot be written back into a bidirectional layer of this "
            "family; choose one that keeps them, with a refit of the read-out."
        )

    def step_sizes(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """One step a channel; where every state has its own, their geometric mean."""
        return np.exp(np.log(steps_of(layer, config, read)).mean(axis=1))

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The repository's example model or that of its training code, as the names around the layers are."""
        return model_forward(tensors, config, layers)


class S4(S4Names):
    """S4 with a diagonal kernel, versions 2 to 4."""

    name = "s4"
    title = "S4 repository, diagonal kernel, V2 to V4"
    help = "diagonal kernels of the S4 repository"
    source = "arXiv 2206.11893, github.com/state-spaces/s4"
    page = "docs/families/s4.md"
    input_layout = "bhl"
    spellings = MappingProxyType({"discretization": ("disc",)})
    options = (
        Option(
            "discretization",
            str,
            "auto",
            "how the layers are made discrete; auto: zoh for V4 and V2, bilinear for V3",
            ("auto", "zoh", "bilinear", "dss"),
        ),
        Option("kernel_length", int, 0, "length that the dss rule normalises over; 0: the limit of long kernels"),
        *S4_OPTIONS,
        *sequence_options(mask_padding=True),
    )

    def settled(self, tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
        """The rule of the kernel's version besides what the model around the layers settles."""
        kernels = [k for k in find_kernels(tensors) if not k.low_rank]
        rules = {"bilinear" if k.version == 3 and "B" in k.roles else "zoh" for k in kernels}
        own = {"discretization": (rules.pop(), "assumed")} if len(rules) == 1 else {}
        return super().settled(tensors, config) | own

    def magnitudes(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """Squares of the parameters that the kernel reads of every state; those of tied poles count once."""
        total = np.zeros((layer.sets, layer.states))
        axes = state_axes(layer, read)
        axes.pop("idle A", None)
        for role, (group, state) in axes.items():
            wide = read(layer.tensors[role]).astype(np.complex128)
            squares = np.moveaxis(np.abs(wide) ** 2, (group, state), (0, 1)).reshape(
                wide.shape[group], layer.states, -1
            )
            total += squares.sum(axis=-1).reshape(-1, layer.sets, layer.states).sum(axis=0)
        return total

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """The layer in discrete time; a bidirectional one has two modes a state (`two_sided`)."""
        from lastcli.engine.system import DiagonalSystem

        C = read_outs(layer, config, read)
        a = poles_of(layer, config, read)[np.arange(len(C)) % layer.sets]
        dt = steps_of(layer, config, read)
        poles, B = to_discrete(layer, config, a, dt)
        stored = input_map(layer, read, len(C))
        # A silent state gets no input either, so that no refit can use what the kernel would not let through.
        heard = audible(config, a, dt)
        B, C = np.where(heard, B if stored is None else B * stored, 0), np.where(heard[:, None, None], C, 0)
        if config["bidirectional"]:
            poles, B, C = split_modes(poles, B, C, layer.name)
        D = ms.feedthrough_of(read(layer.tensors["D"]) if "D" in layer.tensors else None, len(C))
        return DiagonalSystem(
            poles=poles,
            B=B[..., None],
            C=C,
            D=D,
            pairing=pairing_of(layer, config),
            modes=C.shape[1],
            sets=layer.sets,
            feedthrough="none" if D is None else "dense",
            multi=True,
            fixed_poles=self.refuses_moved_poles(layer, config) is not None,
            real_readout=is_real_valued(layer),
        )

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Gathers per set; moved poles are written one copy a channel, which upstream reads with `n_ssm` = H."""
        self.check_moved_poles(layer, config, reduction)
        stored = {role: read(name) for role, name in layer.tensors.items()}
        kept = np.asarray(reduction.kept)
        fills = dict.fromkeys(stored, 0.0)
        fills["real"] = float(parameter_of(np.array(ms.INERT_DECAY), config["real_transform"], relu_floor(layer)))
        fills["dt"] = float(stored["dt"].flat[0])
        new = {
            role: gather(stored[role], kept, size, state=state, group=group, fill=fills[role])
            for role, (group, state) in state_axes(layer, read).items()
        }
        if reduction.changed != "none":
            poles, B, C, D = unfold(reduction.system, layer)
            if reduction.changed == "all":
                dt = steps_of(layer, config, lambda name: new["dt"] if "dt" in new else read(name))
                moved, B, C = _move(layer, config, read, (poles, B, C), dt[:, : poles.shape[1]], size)
                new |= moved
            new["C"] = store_read_outs(layer, pad_states(C, size), stored["C"])
            if D is not None and "D" in stored:
                new["D"] = ms.store_feedthrough(D[..., None], stored["D"], layer.tensors["D"])
        return {layer.tensors[role]: array for role, array in new.items()}


def _move(
    layer: Layer, config: Config, read: Read, system: tuple[np.ndarray, ...], dt: np.ndarray, size: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Stored poles and B of a layer whose poles have moved, and the (B, C) that go with them."""
    poles, B, C = system
    a, gain = to_continuous(layer, config, poles, dt)
    loud = np.abs(B) * np.abs(C).max(axis=(1, 2), initial=0.0) > 0
    if np.any(loud & ~audible(config, a, dt)):
        raise UnsupportedModelError(
            f"{layer.name}: a pole moved beyond bandlimit={config['bandlimit']:g}, where the published kernel is "
            "silent; use a method that keeps the poles, or convert the model to s4d first."
        )
    new, flipped = write_poles(layer, config, read, a, size)
    B = B / gain
    B, C = np.where(flipped, B.conj(), B), np.where(flipped[:, None, None], C.conj(), C)
    if "B" not in layer.tensors:
        return new, B, C * B[:, None, None]
    like = read(layer.tensors["B"])
    padded = pad_states(B, size)
    values = store(padded.real if is_real_valued(layer) else padded, like, layer.tensors["B"])
    # The stored tensor may have a leading axis of one.
    return new | {"B": values[None] if values.ndim < like.ndim else values}, B, C
