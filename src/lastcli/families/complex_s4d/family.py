"""S4D (arXiv 2206.11893) in the form that it has where it is written anew: complex `A` and `C`, as they are.

Tensors of a layer (H channels, N stored states)::

    A (H, N), or (N,) where all channels share it     C (H, N)     native complex, or real with a last axis of 2
    log_dt or log_step (H,), (H, 1) or (1,)           D (H,), and B like A: neither need be there

The kernel is Re Σ C B g(A, dt) exp(k·A·dt) with the gain g of the hold, twice that where the states stand for conjugate
pairs. The real parts of A are taken as they are stored; nothing in the file keeps them negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Family, Layer, Match, Option, Read, Tensors
from lastcli.families.parts import multi_siso as ms
from lastcli.families.parts.discretise import continuous, discrete
from lastcli.families.parts.leaves import expect_shape, groups, layer_name, match_of
from lastcli.families.parts.storage import as_complex, gather, pad_states, store

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["ComplexS4D"]

_STEPS = ("log_dt", "log_step")
# A layer with one of these keeps its poles elsewhere, or is not diagonal.
_FOREIGN = ("P", "Q", "w", "log_A_real", "A_imag", "A_real", "inv_A_real", "inv_w_real", "log_w_real", "A_re", "A_im")


class ComplexS4D(Family):
    """Multi-SISO layers with complex A and C."""

    name = "complex_s4d"
    title = "S4D with a complex A"
    help = "diagonal multi-SISO layers with complex A and C as they are"
    source = "arXiv 2206.11893"
    page = "docs/families/complex_s4d.md"
    options = (
        Option("conj_sym", bool, False, "each stored state stands for a conjugate pair: the kernel is 2·Re"),
        Option("discretization", str, "zoh", "how the layers are made discrete", ("zoh", "bilinear")),
    )

    def match(self, tensors: Tensors) -> Match:
        """Layers are the paths with a complex A beside C and the logarithm of a step."""
        wanted = ("A", "C", "log_dt")
        return match_of(
            self.name,
            ((path, len(roles), [role for role in wanted if role not in roles]) for path, roles in _own(tensors)),
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """Nothing: shapes do not tell one rule or spectrum from the other."""
        return {}

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """One `Layer` a path, its shapes checked against those of C."""
        found = []
        for prefix, roles in _own(tensors):
            C = tensors[roles["C"]]
            if len(_complex_shape(tensors, roles["C"])) != 2 or 0 in C.shape:
                raise UnsupportedModelError(
                    f"Tensor {C.name} has shape {tuple(C.shape)}; expected complex (channels, states), none empty."
                )
            H, N = _complex_shape(tensors, roles["C"])
            for role in ("A", "B"):
                if role in roles and _complex_shape(tensors, roles[role]) not in ((H, N), (N,)):
                    pair = () if tensors[roles[role]].dtype.startswith("complex") else (2,)
                    expect_shape(tensors[roles[role]], (H, N, *pair), (N, *pair))
            expect_shape(tensors[roles["log_dt"]], (H,), (H, 1), (1, H), (1,))
            if "D" in roles:
                expect_shape(tensors[roles["D"]], (H,), (1, H), (H, 1))
            tied = any(len(_complex_shape(tensors, roles[role])) == 1 for role in ("A", "B") if role in roles)
            found.append(Layer(layer_name(prefix), N, 1 if tied else H, roles))
        return tuple(found)

    def refuses_moved_poles(self, layer: Layer, config: Config) -> str | None:
        """Poles that the channels share move for all channels alike, which no method does."""
        if layer.sets > 1:
            return None
        return (
            f"{layer.name}: all channels share one set of states, so poles cannot move for each channel; use a method "
            "that keeps them."
        )

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """One group a channel; the hold's gain is part of C."""
        from lastcli.engine.system import DiagonalSystem

        C = as_complex(read(layer.tensors["C"]))
        poles, gain, _ = _discrete(layer, config, read, len(C))
        D = ms.feedthrough_of(read(layer.tensors["D"]).reshape(-1) if "D" in layer.tensors else None, len(C))
        return DiagonalSystem(
            poles=poles,
            B=np.ones((*poles.shape, 1), complex),
            C=(C * gain)[:, None, None, :],
            D=D,
            pairing=2 if config["conj_sym"] else 1,
            sets=layer.sets,
            feedthrough="none" if D is None else "dense",
            multi=True,
            fixed_poles=self.refuses_moved_poles(layer, config) is not None,
        )

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Gathers per channel; moved poles are written with B = 1."""
        self.check_moved_poles(layer, config, reduction)
        stored = {role: read(name) for role, name in layer.tensors.items()}
        kept, reduced = np.asarray(reduction.kept), reduction.system
        new: dict[str, np.ndarray] = {
            role: _gather(stored[role], kept, size, role) for role in ("A", "B", "C") if role in stored
        }
        count, channels = kept.shape[1], np.arange(len(stored["C"]))
        if reduction.changed != "none":
            _, gain, dt = _discrete(layer, config, read, len(channels))
            gain = np.take_along_axis(gain, kept[channels % layer.sets], axis=1)
            if reduction.changed == "all":
                a = continuous(config["discretization"], np.asarray(reduced.poles), dt)
                gain = discrete(np, config["discretization"], a, dt)[1]
                new["A"] = store(pad_states(a, size, -ms.INERT_DECAY), stored["A"], layer.tensors["A"])
                if "B" in new:
                    ones = np.ones((len(channels), size), complex)
                    new["B"] = store(ones, stored["B"], layer.tensors["B"])
            C = np.asarray(reduced.C)[:, 0, 0] * np.asarray(reduced.B)[..., 0] / gain
            new["C"][:, :count] = store(C, stored["C"], layer.tensors["C"])
            if "D" in stored and reduced.D is not None:
                new["D"] = ms.store_feedthrough(np.asarray(reduced.D), stored["D"], layer.tensors["D"])
        return {layer.tensors[role]: array for role, array in new.items()}

    def magnitudes(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """Squares of A, B and C of every state; what the channels share counts once."""
        total = np.zeros((layer.sets, layer.states))
        for role in ("A", "B", "C"):
            if role in layer.tensors:
                squares = np.atleast_2d(np.abs(as_complex(read(layer.tensors[role]))) ** 2)
                total += squares if len(squares) == layer.sets else squares.sum(axis=0)
        return total


def _own(tensors: Tensors) -> list[tuple[str, dict[str, str]]]:
    """(path, {role: name}) of everything that looks like such a layer, complete or not."""
    found = []
    for prefix, leaves in groups(tensors).items():
        if "A" not in leaves or any(leaf in leaves for leaf in _FOREIGN):
            continue
        step = next((leaves[leaf] for leaf in _STEPS if leaf in leaves), None)
        roles: dict[str, str] = {role: leaves[role] for role in ("A", "B", "C", "D") if role in leaves}
        if _is_complex(tensors, roles) and (step is not None or "C" in roles):
            found.append((prefix, roles | ({} if step is None else {"log_dt": step})))
    return found


def _is_complex(tensors: Tensors, roles: dict[str, str]) -> bool:
    """A complex A; or pairs in A and in a C that has the same last two axes."""
    A = tensors[roles["A"]]
    C = tensors[roles["C"]] if "C" in roles else None
    if A.dtype.startswith("complex"):
        return C is None or C.dtype.startswith("complex") or C.shape[-1:] == (2,)
    pairs = C is not None and len(C.shape) == 3 and C.shape[-1] == 2 and A.shape[-2:] == C.shape[-2:]
    return pairs and len(A.shape) in (2, 3)


def _complex_shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    info = tensors[name]
    return tuple(info.shape) if info.dtype.startswith("complex") else tuple(info.shape[:-1])


def _discrete(layer: Layer, config: Config, read: Read, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Discrete poles and what C is multiplied by, (H, N), and the steps (H, 1), float64."""
    dt = np.exp(read(layer.tensors["log_dt"]).astype(np.float64)).reshape(-1, 1)
    dt = np.broadcast_to(dt, (channels, 1))
    A = np.broadcast_to(as_complex(read(layer.tensors["A"])), (channels, layer.states))
    poles, gain = discrete(np, config["discretization"], A, dt)
    return poles, gain * as_complex(read(layer.tensors["B"])) if "B" in layer.tensors else gain, dt


def _gather(stored: np.ndarray, kept: np.ndarray, size: int, role: str) -> np.ndarray:
    """The kept states of a tensor with a channel axis or without one."""
    rank = stored.ndim - (stored.dtype.kind != "c")
    fill = -ms.INERT_DECAY if role == "A" else 0.0
    new = gather(stored, kept, size, state=rank - 1, group=0 if rank == 2 else None, fill=fill)
    if stored.dtype.kind != "c" and role == "A" and size > kept.shape[1]:
        new[..., kept.shape[1] :, 1] = 0.0
    return new
