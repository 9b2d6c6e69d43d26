"""The annotated S4 (flax): S4D, DSS and S4 layers with a system for every channel, the full spectrum stored.

Flax maps one channel's parameters over a new axis 1, so N states of H channels look like this::

    S4D  A_re, A_im, B_re, B_im (N, H)   C (N, H, 2)      zero-order hold, real parts clipped at -1e-4
    DSS  Lambda_re, Lambda_im (N, H)     W (1, H, N, 2)   row softmax over the kernel's length
    S4   Lambda_re, Lambda_im, P, B (N, H)   C (N, H, 2)  bilinear, Λ - P Pᴴ, C multiplied by I - Ā^L
    all  log_step (1, H)   D (1, H)

The output is Re(C x), without a factor 2. The published S4D kernel does not use B. Collections `cache` and `prime` hold
states and discrete matrices for decoding; both are computed anew, so a reduced file leaves them out.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.annotated.model import STACK_OPTIONS
from lastcli.families.annotated.names import Annotated
from lastcli.families.base import Config, Layer, Option, Read, Tensors
from lastcli.families.parts import multi_siso as ms
from lastcli.families.parts.discretise import continuous, discrete
from lastcli.families.parts.dplr import diagonalise, truncation_factor
from lastcli.families.parts.row_softmax import reciprocal
from lastcli.families.parts.storage import as_complex, gather, pad_states, store

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["AnnotatedDSS", "AnnotatedS4", "AnnotatedS4D"]

CLIP = -1e-4
_POLES = ("Lambda_re", "Lambda_im")


class AnnotatedS4D(Annotated):
    """The annotated S4D layer."""

    name = "annotated_s4d"
    title = "annotated S4, S4D layer"
    help = "S4D layers of the annotated S4 in flax"
    source = "arXiv 2206.11893, github.com/srush/annotated-s4"
    page = "docs/families/annotated_s4.md"
    marks = ("A_re", "A_im", "B_re", "B_im", "C")
    options = (
        Option("use_b", bool, False, "the kernel multiplies by B; the published one does not"),
        *STACK_OPTIONS,
    )
    axes = MappingProxyType(dict.fromkeys(("A_re", "A_im", "B_re", "B_im", "C"), (1, 0)))

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """B = 1 as published; the hold's gain is part of C."""
        poles, gain = _held(layer, config, read)
        C = as_complex(read(layer.tensors["C"])).T * gain
        return _system(layer, read, poles, C)

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Gathers per channel; moved poles are written with B = 1."""
        stored = {role: read(name) for role, name in layer.tensors.items() if not role.startswith("decoding")}
        kept, reduced = np.asarray(reduction.kept), reduction.system
        fills = {"A_re": -ms.INERT_DECAY, "A_im": 0.0, "B_re": 1.0, "B_im": 0.0, "C": 0.0}
        new = {role: gather(stored[role], kept, size, state=0, group=1, fill=fill) for role, fill in fills.items()}
        if reduction.changed == "all":
            new |= _as_s4d(layer, reduced, _step(layer, read), size, stored)
        elif reduction.changed == "readout":
            gain = np.take_along_axis(_held(layer, config, read)[1], kept, axis=1)
            C = np.asarray(reduced.C)[:, 0, 0] * np.asarray(reduced.B)[..., 0] / gain
            new["C"][: kept.shape[1]] = store(C.T, stored["C"], layer.tensors["C"])
        return _named(layer, new, reduction, stored)


class AnnotatedDSS(Annotated):
    """The annotated DSS layer."""

    name = "annotated_dss"
    title = "annotated S4, DSS layer"
    help = "DSS layers of the annotated S4 in flax"
    source = "arXiv 2203.14343, github.com/srush/annotated-s4"
    page = "docs/families/annotated_s4.md"
    marks = (*_POLES, "W")
    absent = ("P", "B", "C")
    options = (
        Option("kernel_length", int, 0, "length that the softmax normalises over; 0: the limit of long kernels"),
        *STACK_OPTIONS,
    )
    axes = MappingProxyType({**dict.fromkeys(_POLES, (1, 0)), "W": (1, 2)})

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """B = 1; the softmax is part of C."""
        a, step = _poles(layer, read), _step(layer, read)
        gain = _softmax(layer, config, a, step)
        return _system(layer, read, np.exp(a * step), as_complex(read(layer.tensors["W"]))[0] * gain)

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Gathers per channel."""
        stored = {role: read(name) for role, name in layer.tensors.items() if not role.startswith("decoding")}
        kept, reduced, count = np.asarray(reduction.kept), reduction.system, reduction.kept.shape[1]
        fills = {"Lambda_re": -ms.INERT_DECAY, "Lambda_im": 0.0}
        new = {role: gather(stored[role], kept, size, state=0, group=1, fill=fill) for role, fill in fills.items()}
        new["W"] = gather(stored["W"], kept, size, state=2, group=1)
        if reduction.changed != "none":
            step = _step(layer, read)
            a = np.take_along_axis(_poles(layer, read), kept, axis=1)
            if reduction.changed == "all":
                a = continuous("zoh", np.asarray(reduced.poles), step)
                for role, values in zip(_POLES, (a.real.T, a.imag.T)):
                    new[role][:count] = store(values, stored[role], layer.tensors[role])
            W = np.asarray(reduced.C)[:, 0, 0] * np.asarray(reduced.B)[..., 0] / _softmax(layer, config, a, step)
            new["W"][:, :, :count] = store(W[None], stored["W"], layer.tensors["W"])
        return _named(layer, new, reduction, stored)


class AnnotatedS4(Annotated):
    """The annotated S4 layer, diagonalised; what is written is the annotated S4D layer."""

    name = "annotated_s4"
    title = "annotated S4, S4 layer"
    help = "S4 layers of the annotated S4 in flax, diagonalised"
    source = "arXiv 2111.00396, github.com/srush/annotated-s4"
    page = "docs/families/annotated_s4.md"
    marks = (*_POLES, "P", "B", "C")
    absent = ("W",)
    diagonalises = True
    converts_to = ("annotated_s4d",)
    options = (
        Option("kernel_length", int, 0, "length that C is stored for, the l_max of training; has to be given"),
        *STACK_OPTIONS,
    )

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """The diagonalised layer, B = 1, residues in C.

        Raises:
            UnsupportedModelError: the length that C is stored for is not known.
        """
        length = config["kernel_length"]
        if length <= 0:
            raise UnsupportedModelError(
                f"{layer.name}: C is stored for one kernel length, which the file does not say; give the length of the "
                "training sequences with --set kernel_length=L."
            )
        eigenvalues = np.minimum(read(layer.tensors["Lambda_re"]).astype(np.float64), CLIP).T
        eigenvalues = eigenvalues + 1j * read(layer.tensors["Lambda_im"]).astype(np.float64).T
        P, B = (read(layer.tensors[role]).astype(np.complex128).T for role in ("P", "B"))
        C = as_complex(read(layer.tensors["C"])).conj().T
        a, residues = diagonalise(eigenvalues, P, B, C, layer.name)
        poles, gain = discrete(np, "bilinear", a, _step(layer, read))
        return _system(layer, read, poles, residues * gain / truncation_factor(poles, length))

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """The reduced layer as annotated S4D; there is nothing to gather, the file has no diagonal states."""
        stored = {role: read(name) for role, name in layer.tensors.items() if not role.startswith("decoding")}
        stem = layer.tensors["C"].removesuffix("C")
        written = _as_s4d(layer, reduction.system, _step(layer, read), size, stored)
        changes = _named(layer, {}, reduction, stored)
        changes |= {layer.tensors[role]: None for role in (*_POLES, "P", "B")}
        return changes | {stem + role: values for role, values in written.items()}

    def rebuilt_config(self, config: Config) -> dict[str, Any]:
        """The family changes with the form."""
        return {
            "family": "annotated_s4d",
            "use_b": False,
            **{option.key: config[option.key] for option in STACK_OPTIONS},
        }

    def convert(
        self, tensors: Tensors, config: Config, read: Read, target: str
    ) -> tuple[dict[str, np.ndarray | None], dict[str, Any]]:
        """As `Family.convert`, with annotated S4D layers.

        Raises:
            UsageError: the target is another one.
        """
        from lastcli.engine.system import Reduction

        if target not in self.converts_to:
            return super().convert(tensors, config, read, target)
        changes: dict[str, np.ndarray | None] = {}
        for layer in self.layers(tensors, config):
            system = self.system(layer, config, read)
            whole = Reduction(np.tile(np.arange(system.states), (system.sets, 1)), system)
            changes |= self.rebuild(layer, config, read, whole, system.states)
        return changes, self.rebuilt_config(config)


def _step(layer: Layer, read: Read) -> np.ndarray:
    """(H, 1) float64."""
    return np.exp(read(layer.tensors["log_step"]).astype(np.float64)).reshape(-1, 1)


def _poles(layer: Layer, read: Read) -> np.ndarray:
    """Continuous poles of DSS, (H, N)."""
    real, imag = (read(layer.tensors[role]).astype(np.float64).T for role in _POLES)
    return real + 1j * imag


def _held(layer: Layer, config: Config, read: Read) -> tuple[np.ndarray, np.ndarray]:
    """Discrete poles of S4D and what C is multiplied by, (H, N)."""
    t = {role: read(layer.tensors[role]).astype(np.float64).T for role in ("A_re", "A_im", "B_re", "B_im")}
    poles, gain = discrete(np, "zoh", np.minimum(t["A_re"], CLIP) + 1j * t["A_im"], _step(layer, read))
    return poles, gain * (t["B_re"] + 1j * t["B_im"]) if config["use_b"] else gain


def _softmax(layer: Layer, config: Config, a: np.ndarray, step: np.ndarray) -> np.ndarray:
    """What W is multiplied by: 1/a over the sum of the row, whose largest entry the published code makes 1."""
    dta, length = a * step, config["kernel_length"]
    grows = dta.real > 0
    if length <= 0:
        if grows.any():
            raise UnsupportedModelError(
                f"{layer.name}: {int(grows.sum())} modes grow, so their softmax depends on the length of the kernel; "
                "give it with --set kernel_length=L (the length of the training sequences)."
            )
        return reciprocal(-1 / np.expm1(dta)) / a
    signed = np.where(grows, -dta, dta)
    total = np.expm1(signed * length) / np.expm1(signed)
    gain = reciprocal(total) / a
    return np.where(grows, gain * np.exp(np.where(grows, -dta * (length - 1), 0)), gain)


def _system(layer: Layer, read: Read, poles: np.ndarray, C: np.ndarray) -> DiagonalSystem:
    from lastcli.engine.system import DiagonalSystem

    D = ms.feedthrough_of(read(layer.tensors["D"]) if "D" in layer.tensors else None, layer.sets)
    return DiagonalSystem(
        poles=poles,
        B=np.ones((*poles.shape, 1), complex),
        C=C[:, None, None, :],
        D=D,
        sets=layer.sets,
        feedthrough="none" if D is None else "dense",
        multi=True,
    )


def _as_s4d(
    layer: Layer, system: DiagonalSystem, step: np.ndarray, size: int, stored: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """A_re, A_im, B_re, B_im and C of a system with moved poles; B is 1."""
    a = continuous("zoh", np.asarray(system.poles), step)
    a = np.minimum(a.real, CLIP) + 1j * a.imag
    C = np.asarray(system.C)[:, 0, 0] * np.asarray(system.B)[..., 0] / discrete(np, "zoh", a, step)[1]
    values = {
        "A_re": pad_states(a.real, size, -ms.INERT_DECAY),
        "A_im": pad_states(a.imag, size),
        "B_re": np.ones((len(a), size)),
        "B_im": np.zeros((len(a), size)),
        "C": pad_states(C, size),
    }
    stem, like = layer.tensors["C"].removesuffix("C"), {"C": stored["C"]}
    return {role: store(array.T, like.get(role, stored["C"].real), stem + role) for role, array in values.items()}


def _named(
    layer: Layer, new: dict[str, np.ndarray], reduction: Reduction, stored: dict[str, np.ndarray]
) -> dict[str, np.ndarray | None]:
    """By tensor name, with D where it changed and the decoding collections gone."""
    if reduction.changed != "none" and "D" in stored and reduction.system.D is not None:
        new["D"] = ms.store_feedthrough(np.asarray(reduction.system.D), stored["D"], layer.tensors["D"])
    changes: dict[str, np.ndarray | None] = {layer.tensors[role]: array for role, array in new.items()}
    return changes | {name: None for role, name in layer.tensors.items() if role.startswith("decoding")}
