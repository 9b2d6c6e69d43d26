"""DSS (arXiv 2203.14343): diagonal state spaces whose poles all channels share.

Tensors of a layer, with H channels, N states (the full set, no conjugates implied) and `ch` read-outs::

    kernel.Lambda (N, 2), or kernel.Lambda_log_neg_re with kernel.Lambda_im or kernel.Lambda_log_im (N,)
    kernel.W (ch, H, N, 2)      kernel.log_dt (H,), or (H, 2) with steps of their own for decay and frequency
    D (heads, H)

The softmax version normalises every mode over the kernel's length, the exp version by the zero-order hold. Channels
share the poles, so they share one set of kept states.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, Match, Option, Read, Tensors
from lastcli.families.parts import multi_siso as ms
from lastcli.families.parts.leaves import expect_shape, groups, match_of
from lastcli.families.parts.row_softmax import EPSILON, softmax_gain
from lastcli.families.parts.storage import as_complex, gather, pad_states, store
from lastcli.families.parts.two_sided import split_modes
from lastcli.families.s4.kernel import unfold
from lastcli.families.s4.model import idle_options, model_forward
from lastcli.families.s4.models.sequence_names import proofs, sequence_options
from lastcli.families.s4.models.settled import settled_model
from lastcli.families.s4.to_s4d import Convertible

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["DSS"]

_POLES = ("Lambda", "Lambda_log_neg_re", "Lambda_im", "Lambda_log_im")
# The published bound on the real part where the version clips it.
_LARGEST_REAL = 1e-4


class DSS(Convertible):
    """Diagonal state spaces with shared poles, softmax and exp versions."""

    name = "dss"
    title = "DSS, exp and softmax"
    help = "diagonal state spaces whose poles all channels share"
    source = "arXiv 2203.14343, github.com/ag1988/dss"
    page = "docs/families/dss.md"
    input_layout = "bhl"
    options = (
        Option(
            "version",
            str,
            "auto",
            "how modes are scaled; auto: softmax where Lambda is stored as it is, exp where its logarithm is",
            ("auto", "softmax", "exp", "exp-no-scale", "clip", "clip-no-scale"),
        ),
        Option("kernel_length", int, 0, "length that the softmax normalises over; 0: the limit of long kernels"),
        Option("bidirectional", bool, False, "half of the read-outs look ahead"),
        *sequence_options(mask_padding=False),
    )
    axes = MappingProxyType({**dict.fromkeys(_POLES, (None, 0)), "W": (None, 2)})

    def match(self, tensors: Tensors) -> Match:
        """Layers are found by a shared `Lambda` (or its logarithms) beside `W` and `log_dt`."""
        return match_of(
            self.name,
            (
                (prefix, sum(leaf in leaves for leaf in (*_POLES, "W", "log_dt")), _lacking(leaves))
                for prefix, leaves in _kernels(tensors).items()
            ),
            ms.layer_of,
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """Direction, from the rows of W against those of D; and what the model around the layers shows."""
        kernels = {prefix: leaves for prefix, leaves in _kernels(tensors).items() if not _lacking(leaves)}
        directions = set()
        for prefix, leaves in kernels.items():
            D = tensors.get(ms.owner(prefix) + "D")
            if D is not None:
                directions.add(tensors[leaves["W"]].shape[0] == 2 * (D.shape[0] if len(D.shape) == 2 else 1))
        proven = proofs(tensors, [ms.layer_of(prefix) for prefix in kernels])
        return proven | ({"bidirectional": directions.pop()} if len(directions) == 1 else {})

    def settled(self, tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
        """The version that the spelling of the poles goes with, and the model around the layers."""
        spelled = {"softmax" if "Lambda" in leaves else "exp" for leaves in _kernels(tensors).values()}
        own = {"version": (spelled.pop(), "assumed")} if len(spelled) == 1 else {}
        return settled_model(tensors, self.match(tensors).layers) | own

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """Options of a model that this is not."""
        return idle_options(tensors, self.match(tensors).layers)

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """One `Layer` a kernel; one index set, since the channels share the poles."""
        found = []
        for prefix, leaves in _kernels(tensors).items():
            roles = {role: leaves[role] for role in (*_POLES, "W", "log_dt") if role in leaves}
            W = tensors[roles["W"]]
            body = W.shape if W.dtype.startswith("complex") else W.shape[:-1]
            if len(body) != 3:
                raise UnsupportedModelError(
                    f"Tensor {W.name} has shape {W.shape}; expected (read-outs, channels, states, 2)."
                )
            rows, H, N = body
            for role in _POLES:
                if role in roles:
                    pair = role == "Lambda" and not tensors[roles[role]].dtype.startswith("complex")
                    expect_shape(tensors[roles[role]], (N, 2) if pair else (N,))
            expect_shape(tensors[roles["log_dt"]], (H,), (H, 1), (H, 2))
            D = ms.owner(prefix) + "D"
            if D in tensors:
                expect_shape(tensors[D], (rows // 2 if config["bidirectional"] else rows, H), (H,))
                roles["D"] = D
            found.append(Layer(ms.layer_of(prefix), N, 1, roles))
        return tuple(found)

    def refuses_moved_poles(self, layer: Layer, config: Config) -> str | None:
        """All channels have the same ones."""
        return (
            f"{layer.name}: DSS shares its poles over all channels, so poles that moved in each of them cannot be "
            "written; choose a method that keeps the poles, or convert the model to s4d first."
        )

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """B = 1; the scaling of the modes is part of C, as in the published kernel."""
        from lastcli.engine.system import DiagonalSystem

        poles, gain = _discrete(layer, config, read)
        W = as_complex(read(layer.tensors["W"]))
        R = 2 if config["bidirectional"] else 1
        C = (W * gain).reshape(R, W.shape[0] // R, *poles.shape).transpose(2, 0, 1, 3)
        B = np.ones_like(poles)
        if config["bidirectional"]:
            poles, B, C = split_modes(poles, B, C, layer.name)
        D = ms.feedthrough_of(read(layer.tensors["D"]) if "D" in layer.tensors else None, len(C))
        return DiagonalSystem(
            poles=poles,
            B=B[..., None],
            C=C,
            D=D,
            modes=R,
            feedthrough="none" if D is None else "dense",
            multi=True,
            fixed_poles=True,
        )

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Gathers of the shared states; a computed read-out is divided by the scaling of its modes again."""
        self.check_moved_poles(layer, config, reduction)
        stored = {role: read(name) for role, name in layer.tensors.items()}
        kept = np.asarray(reduction.kept)
        new = {role: gather(stored[role], kept, size, state=0) for role in _POLES if role in stored}
        new["W"] = gather(stored["W"], kept, size, state=2)
        # Beyond the kept ones, a decaying mode that nothing reads.
        if "Lambda" in new:
            new["Lambda"][kept.shape[1] :] = store(
                np.array(-ms.INERT_DECAY + 0j), stored["Lambda"], layer.tensors["Lambda"]
            )
        if "Lambda_log_neg_re" in new:
            new["Lambda_log_neg_re"][kept.shape[1] :] = np.log(ms.INERT_DECAY)
        if reduction.changed == "readout":
            _, B, C, D = unfold(reduction.system, layer)
            gain = _discrete(layer, config, read)[1][:, kept[0]]
            W = (C * (B / gain)[:, None, None]).transpose(1, 2, 0, 3).reshape(-1, *B.shape)
            new["W"] = store(pad_states(W, size), stored["W"], layer.tensors["W"])
            if D is not None and "D" in stored:
                new["D"] = ms.store_feedthrough(D[..., None], stored["D"], layer.tensors["D"])
        return {layer.tensors[role]: array for role, array in new.items()}

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """A model of the S4 repository, mostly that of its training code: DSS is a fork of it."""
        return model_forward(tensors, config, layers)

    def step_sizes(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """The step of the decay where frequency has another."""
        log_dt = read(layer.tensors["log_dt"]).astype(np.float64)
        return np.exp(log_dt.reshape(log_dt.shape[0], -1)[:, 0])


def _kernels(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{prefix: {leaf: name}} of everything that looks like a DSS kernel, complete or not."""
    found = {}
    for prefix, leaves in groups(tensors).items():
        shared = "Lambda" in leaves and ("W" in leaves or "log_dt" in leaves)
        if shared or any(leaf in leaves for leaf in ("Lambda_log_neg_re", "Lambda_log_im")):
            found[prefix] = leaves
    return found


def _lacking(leaves: dict[str, str]) -> list[str]:
    lacking = [leaf for leaf in ("W", "log_dt") if leaf not in leaves]
    if "Lambda" not in leaves:
        lacking += [] if "Lambda_log_neg_re" in leaves else ["Lambda_log_neg_re"]
        lacking += [] if "Lambda_im" in leaves or "Lambda_log_im" in leaves else ["Lambda_im"]
    return lacking


def _version(layer: Layer, config: Config) -> str:
    if config["version"] != "auto":
        return config["version"]
    return "softmax" if "Lambda" in layer.tensors else "exp"


def _discrete(layer: Layer, config: Config, read: Read) -> tuple[np.ndarray, np.ndarray]:
    """Poles (H, N) and what W is multiplied by, complex128."""
    version = _version(layer, config)
    roles = layer.tensors
    if "Lambda" in roles:
        a = as_complex(read(roles["Lambda"]))
        if version.startswith("clip"):
            a = np.minimum(a.real, _LARGEST_REAL) + 1j * a.imag
    else:
        real = -ms.transform(read(roles["Lambda_log_neg_re"]), "exp")
        logs = "Lambda_log_im" in roles
        imag = ms.transform(read(roles["Lambda_log_im" if logs else "Lambda_im"]), "exp" if logs else "none")
        a = real + 1j * imag
    log_dt = read(roles["log_dt"]).astype(np.float64)
    dt = np.exp(log_dt.reshape(log_dt.shape[0], -1))
    dta = dt[:, :1] * a.real + 1j * dt[:, -1:] * a.imag
    poles = np.exp(dta)
    if version == "softmax":
        return poles, softmax_gain(a, dta, config["kernel_length"], layer.name)
    if version.endswith("no-scale"):
        return poles, np.ones_like(poles)
    return poles, np.expm1(dta) * a.conj() / np.maximum(np.abs(a) ** 2, EPSILON)
