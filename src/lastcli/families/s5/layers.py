"""Layers as S5's flax code and its descendants store them: what S5, Event-SSM and s5-pytorch have in common.

Names: `Lambda_re`, `Lambda_im` (P,), `B` (P, H_in, 2), `C` (H_out, P, 2), `log_step` (P, 1), `D` (H,) or
(H_out, H_in). A bidirectional layer has `C1` and `C2` instead of `C`, or one `C` (H, 2P, 2) with the forward half
first. Real and imaginary parts lie on the last axis; s5-pytorch has complex `Lambda` (P,) and `C` (H, P) instead. Axes
are told by their position, never by their size, so that P = H is no special case.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Family, Layer, Read, Tensors
from lastcli.families.parts.discretise import discrete
from lastcli.families.parts.leaves import groups
from lastcli.families.parts.storage import as_complex, gather, pad_states, store
from lastcli.families.s5.dynamics import CLIP, Stored, inverse_dynamics, to_system

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["S5Layers", "candidates", "check_shapes", "decode", "is_joint", "lacking"]

_ALWAYS = ("Lambda_re", "Lambda_im", "B", "D", "log_step")
_READ_OUTS = ("C", "C1", "C2")
# An inert state decays within a few steps and touches nothing.
_INERT = {"Lambda_re": -1.0, "Lambda": -1.0}


class S5Layers(Family):
    """From stored S5 layers to discrete systems and back."""

    axes = MappingProxyType(
        {
            **dict.fromkeys(("Lambda_re", "Lambda_im", "Lambda", "B", "log_step"), (None, 0)),
            **dict.fromkeys(_READ_OUTS, (None, 1)),
        }
    )

    def time(self, layer: Layer, config: Config) -> float:
        """Time between two inputs of a layer, in units of its steps."""
        return 1.0

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """The layer in discrete time."""
        rule = config["discretization"]
        stored = decode(layer, config, read, self.time(layer, config))
        dense = np.asarray(read(layer.tensors["D"])).ndim == 2
        return to_system(stored, rule, 2 if config.get("conj_sym") else 1, "dense" if dense else "diagonal")

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Tensors of the reduced layer; new poles keep their slot's step size where clipping allows it."""
        old = {role: read(name) for role, name in layer.tensors.items()}
        kept = np.asarray(reduction.kept)
        new = {
            role: gather(
                old[role],
                kept,
                size,
                state=axis,
                blocks=old[role].shape[axis] // layer.states,
                fill=_INERT.get(role, 0.0),
            )
            for role, (_, axis) in self.axes.items()
            if role in old
        }
        if reduction.changed == "all":
            _write_dynamics(layer, config, reduction.system, new, self.time(layer, config))
        if reduction.changed != "none":
            new |= _read_outs(layer, reduction.system, old, size)
        return {layer.tensors[role]: values for role, values in new.items()}


def candidates(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{prefix: {role: name}} of everything that looks like an S5 layer, complete or not."""
    found = {}
    for prefix, leaves in groups(tensors).items():
        roles = {role: leaves[role] for role in (*_ALWAYS, *_READ_OUTS) if role in leaves}
        marks = [role for role in ("Lambda_re", "Lambda_im") if role in roles]
        # Two-dimensional eigenvalues belong to layers with a system for every channel.
        flat = [len(tensors[roles[mark]].shape) == 1 for mark in marks]
        enough = 2 if len(marks) == 2 else 4 - len(marks)
        if len(roles) >= enough and (any(flat) or not marks):
            found[prefix] = roles
    return found


def lacking(roles: dict[str, str]) -> list[str]:
    """Roles that an incomplete layer still needs."""
    missing = [role for role in _ALWAYS if role not in roles]
    if "C" in roles:
        return missing
    halves = [role for role in ("C1", "C2") if role not in roles]
    return missing + (["C"] if len(halves) == 2 else halves)


def is_joint(roles: dict[str, str], tensors: Tensors) -> bool:
    """Whether one C (H, 2P, 2) holds both directions."""
    if "C" not in roles:
        return False
    shape = tensors[roles["C"]].shape
    return len(shape) == 3 and shape[1] == 2 * tensors[roles["Lambda_re"]].shape[0]


def check_shapes(roles: dict[str, str], tensors: Tensors, square: bool = True) -> int:
    """P, once every tensor of a layer agrees on it.

    Args:
        square: as many outputs as inputs, in one direction or two; else one direction only.

    Raises:
        UnsupportedModelError: names the tensor, its shape and the one it should have.
    """
    states = tensors[roles["Lambda_re"]].shape[0]
    shape = tensors[roles["B"]].shape
    width = outputs = shape[1] if len(shape) == 3 else 0
    if not square:
        outputs = (*tensors[roles["C"]].shape, 0)[0]
    expected = {
        "Lambda_im": ((states,),),
        "log_step": ((states, 1), (states,)),
        "B": ((states, width, 2),),
        "C": ((outputs, states, 2), (outputs, 2 * states, 2))[: 2 if square else 1],
        "C1": ((width, states, 2),),
        "C2": ((width, states, 2),),
        "D": ((outputs,),) if width == outputs else ((outputs, width),),
    }
    for role in ("Lambda_im", "log_step", "B", "C", "C1", "C2", "D"):
        if role in roles and tensors[roles[role]].shape not in expected[role]:
            wanted = expected[role][0] if width or role != "B" else f"({states}, H, 2)"
            raise UnsupportedModelError(
                f"{roles[role]} has the shape {tensors[roles[role]].shape}, but a layer with {states} states "
                f"(from {roles['Lambda_re']}) needs {wanted}; the axes may be exchanged or the tensors of two "
                "models mixed."
            )
    return states


def decode(layer: Layer, config: Config, read: Read, time: float) -> Stored:
    """The layer's parameters in float64, `time` being that between two inputs."""
    values = {role: read(name) for role, name in layer.tensors.items()}
    poles, step = _poles_and_steps(values, config)
    if "C2" in values:
        C = np.stack([as_complex(values["C1"]), as_complex(values["C2"])])
    else:
        C = np.stack(np.split(as_complex(values["C"]), values["C"].shape[1] // layer.states, axis=1))
    D = values["D"].astype(np.float64)
    return Stored(poles, step, as_complex(values["B"]), C, D if D.ndim == 2 else np.diag(D), time)


def _poles_and_steps(values: dict[str, np.ndarray], config: Config) -> tuple[np.ndarray, np.ndarray]:
    step = config["step_rescale"] * np.exp(values["log_step"].astype(np.float64).reshape(-1))
    if "Lambda" in values:
        return as_complex(values["Lambda"]), step
    real = values["Lambda_re"].astype(np.float64)
    if config["clip_eigs"]:
        real = np.minimum(real, CLIP)
    return real + 1j * values["Lambda_im"].astype(np.float64), step


def _read_outs(layer: Layer, system: DiagonalSystem, old: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """C (or C1 and C2) and D from the reduced system, in the stored dtypes."""
    C = pad_states(np.asarray(system.C)[0], size)
    stored = {"C1": C[0], "C2": C[1]} if "C2" in old else {"C": np.concatenate(list(C), axis=1)}
    new = {role: store(values, old[role], layer.tensors[role]) for role, values in stored.items()}
    D = np.zeros(np.shape(system.C)[2:3] + np.shape(system.B)[2:]) if system.D is None else np.asarray(system.D)[0]
    D = D if old["D"].ndim == 2 else np.diagonal(D)
    return new | {"D": store(D, old["D"], layer.tensors["D"])}


def _write_dynamics(
    layer: Layer, config: Config, system: DiagonalSystem, new: dict[str, np.ndarray], time: float
) -> None:
    """Overwrite poles, steps and B of the gathered tensors `new` by those of the reduced system."""
    rule, limit = config["discretization"], CLIP if config.get("clip_eigs") else None
    poles = np.asarray(system.poles)[0]
    count = len(poles)
    delta = _poles_and_steps(new, config)[1][:count] * time
    a, smaller = inverse_dynamics(layer, rule, poles, delta, limit)
    for role, values in {"Lambda_re": a.real, "Lambda_im": a.imag, "Lambda": a}.items():
        if role in new:
            new[role][:count] = store(values, new[role], layer.tensors[role])
    changed = np.flatnonzero(smaller != delta)
    logs = np.log(smaller[changed] / time / config["step_rescale"])
    new["log_step"].reshape(-1)[changed] = store(logs, new["log_step"], layer.tensors["log_step"])
    # B makes up for what the poles and steps lose to the stored precision.
    stored_poles, stored_step = _poles_and_steps(new, config)
    gain = discrete(np, rule, stored_poles[:count], stored_step[:count], time)[1]
    B = np.asarray(system.B)[0] / gain[:, None]
    new["B"][:count] = store(B, new["B"], layer.tensors["B"])
