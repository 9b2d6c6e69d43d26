"""Linear Recurrent Units (Orvieto et al., arXiv 2303.06349) in their flax, equinox and torch spellings.

    λ = exp(-exp(nu_log) + i·exp(theta_log)),   B_eff = exp(gamma_log)·B,   y = Re(C x) + D u

Three spellings of the same layer: `B_re`, `B_im`, `C_re`, `C_im` with D (H,) (minimal-LRU, compressm); complex `B`, `C`
with D (H_out, H_in) (LRU-pytorch, lru-reduction); `Bp` in place of `B` (DecodEPFL). The published torch code of
DecodEPFL reads the state before the update, y[k] = Re(C x[k]) + D u[k], x[k+1] = λ x[k] + B u[k]; the others after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Family, Forward, Layer, Match, Option, Read, Tensors, task_option
from lastcli.families.equinox.names import EQUINOX_KEYS, EQUINOX_OPTIONS, equinox_lacks
from lastcli.families.parts.leaves import canonical, groups, layer_name, match_of
from lastcli.families.parts.storage import gather, pad_states, read_complex, store, write_complex

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["LRU"]

_MARKS = ("nu_log", "theta_log", "gamma_log")
# role → the state axis of its tensor
_STATE_AXIS = {
    **dict.fromkeys((*_MARKS, "B", "B_re", "B_im"), 0),
    **dict.fromkeys(("C", "C_re", "C_im", "x0"), 1),
}
# A zero angle has no logarithm: exp of this is zero beside any other angle, in every dtype.
_LOG_OF_NO_ANGLE = -50.0
# A pole at zero has no logarithm either; this one decays to nothing within a step.
_SMALLEST_MODULUS = 1e-30


class LRU(Family):
    """Diagonal complex recurrences stored by the logarithms of decay and angle."""

    name = "lru"
    axes = MappingProxyType({role: (None, axis) for role, axis in _STATE_AXIS.items() if role != "x0"})
    title = "LRU (minimal-LRU, compressm, LRU-pytorch, lru-reduction, DecodEPFL)"
    help = "Linear Recurrent Units: complex decays stored by their logarithms"
    source = "arXiv 2303.06349"
    page = "docs/families/lru.md"
    options = (
        Option(
            "architecture",
            str,
            "none",
            "the published model around the layers, known by its tensor names",
            ("none", "minimal-lru", "deep-ssm", "dlru", "equinox"),
        ),
        Option(
            "delay",
            str,
            "auto",
            "the output reads the state after (0) or before (1) the update; auto: 1 for DecodEPFL's names, else 0",
            ("auto", "0", "1"),
        ),
        Option("norm", str, "auto", "normalisation around a layer", ("auto", "layer", "batch", "none")),
        Option("prenorm", bool, True, "normalise before the layer instead of after the skip connection (minimal-LRU)"),
        Option(
            "pooling", str, "mean", "what the classifier sees of the sequence (minimal-LRU)", ("mean", "last", "none")
        ),
        Option(
            "multidim", int, 1, "classes of each of several outputs a step, for a head of their product (minimal-LRU)"
        ),
        Option("lip", float, 1.0, "Lipschitz bound of the feed-forward networks of sandwich layers (DeepSSM's LMLP)"),
        task_option("auto", "auto"),
        *EQUINOX_OPTIONS,
    )

    def match(self, tensors: Tensors) -> Match:
        """Layers are the paths that hold any of `nu_log`, `theta_log`, `gamma_log`."""
        return match_of(
            self.name,
            ((prefix, len(_roles(leaves)), _lacking(leaves)) for prefix, leaves in _candidates(tensors).items()),
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """The published model around the layers, where every tensor of the file has its place in it."""
        from lastcli.families.lru.names import recognise

        architecture = recognise(tensors, list(_candidates(tensors)))
        return {} if architecture is None else {"architecture": architecture}

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """What only the other models leave open."""
        from lastcli.families.lru.names import recognise

        architecture = recognise(tensors, list(_candidates(tensors)))
        if architecture == "equinox":
            return frozenset({"prenorm", "pooling", "multidim", "lip"})
        if architecture == "minimal-lru":
            return EQUINOX_KEYS | {"lip"}
        sandwiches = any(canonical(name).endswith("/psi") for name in tensors) and architecture == "deep-ssm"
        return EQUINOX_KEYS | {"multidim"} | (set() if sandwiches else {"lip"})

    def settled(self, tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
        """When the output reads the state, and the norm and the task of the published model around the layers."""
        from lastcli.families.lru.names import reads_before, settled_model

        before = reads_before(tensors, list(_candidates(tensors)))
        source = "assumed" if before is None else "tensors"
        return {"delay": ("1" if before else "0", source), **settled_model(tensors, config)}

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """Every LRU of the checkpoint, its shapes checked."""
        found = []
        for prefix, leaves in _candidates(tensors).items():
            roles = _roles(leaves)
            states = _check(layer_name(prefix), roles, tensors)
            found.append(Layer(layer_name(prefix), states, 1, roles))
        return tuple(found)

    def refuses_moved_poles(self, layer: Layer, config: Config) -> str | None:
        """A trained initial state is one of the states that are there."""
        if "x0" not in layer.tensors:
            return None
        return (
            f"Layer {layer.name} has a trained initial state ({layer.tensors['x0']}), which a method that moves the "
            "poles cannot carry over; use a method that keeps them."
        )

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """One MIMO group, no pairing, the delay of the configuration."""
        from lastcli.engine.system import DiagonalSystem

        names = layer.tensors
        nu, theta, gamma = (read(names[mark]).astype(np.float64) for mark in _MARKS)
        B = np.exp(gamma)[:, None] * read_complex(names, "B", read)
        D, feedthrough = None, "none"
        if "D" in names:
            stored = read(names["D"]).astype(np.float64)
            D, feedthrough = (np.diag(stored), "diagonal") if stored.ndim == 1 else (stored, "dense")
        return DiagonalSystem(
            poles=np.exp(-np.exp(nu) + 1j * np.exp(theta))[None],
            B=B[None],
            C=read_complex(names, "C", read)[None, None],
            D=None if D is None else D[None],
            delay=_delay(layer, config),
            feedthrough=feedthrough,
            fixed_poles=self.refuses_moved_poles(layer, config) is not None,
        )

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Gathered tensors, with C and D (and the poles, gamma and B) recomputed where the reduction changed them."""
        self.check_moved_poles(layer, config, reduction)
        names, kept = layer.tensors, np.asarray(reduction.kept)
        new: dict[str, np.ndarray | None] = {
            names[role]: gather(read(names[role]), kept, size, state=axis)
            for role, axis in _STATE_AXIS.items()
            if role in names
        }
        if reduction.changed == "none":
            return new
        system = reduction.system
        new.update(write_complex(names, "C", read, pad_states(np.asarray(system.C)[0, 0], size)))
        if "D" in names and system.D is not None:
            stored = read(names["D"])
            block = np.asarray(system.D)[0]
            new[names["D"]] = store(np.diagonal(block) if stored.ndim == 1 else block, stored, names["D"])
        if reduction.changed == "all":
            new.update(_parametrise(layer, read, system, size))
        return new

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """minimal-LRU's classifier, DecodEPFL's DeepSSM, lru-reduction's DLRU and the equinox model; or None."""
        if config.get("architecture") == "equinox":
            from lastcli.families.equinox.model import equinox_forward

            return equinox_forward(tensors, config, layers)
        from lastcli.families.lru import model as lru_models

        return lru_models.forward(tensors, config, layers)

    def lacks(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> str | None:
        """The statistics of the equinox model's norms, where only they are missing."""
        return equinox_lacks(tensors, config, layers) if config.get("architecture") == "equinox" else None


def _candidates(tensors: Tensors) -> dict[str, dict[str, str]]:
    return {prefix: leaves for prefix, leaves in groups(tensors).items() if any(mark in leaves for mark in _MARKS)}


def _roles(leaves: Mapping[str, str]) -> dict[str, str]:
    """role → tensor name; `Bp` is the torch spelling of B before gamma, `x0_param` a trained initial state."""
    aliases = {"Bp": "B", "x0_param": "x0"}
    known = (*_STATE_AXIS, "D")
    roles = {aliases.get(leaf, leaf): name for leaf, name in leaves.items()}
    return {role: roles[role] for role in known if role in roles}


def _lacking(leaves: Mapping[str, str]) -> list[str]:
    roles = _roles(leaves)
    lacking = [mark for mark in _MARKS if mark not in roles]
    halved = any(half in roles for half in ("B_re", "B_im", "C_re", "C_im"))
    for key in ("B", "C"):
        if key not in roles:
            lacking += [half for half in (f"{key}_re", f"{key}_im") if half not in roles] if halved else [key]
    return lacking


def _check(layer: str, roles: Mapping[str, str], tensors: Tensors) -> int:
    """The state count, after every shape agreed with it.

    Raises:
        UnsupportedModelError: a tensor's shape contradicts the others.
    """
    states = _length(layer, tensors, roles["nu_log"])
    widths: dict[str, int] = {}
    for role, axis in _STATE_AXIS.items():
        if role not in roles:
            continue
        info = tensors[roles[role]]
        shape = info.shape
        if role in ("B", "C") and not info.dtype.startswith("complex"):
            if len(shape) != 3 or shape[-1] != 2:
                raise _wrong(layer, roles[role], shape, "complex, or real with a last axis of 2")
            shape = shape[:-1]
        wanted = 1 if role in _MARKS else 2
        if len(shape) != wanted or shape[axis] != states:
            raise _wrong(layer, roles[role], info.shape, f"{states} states on axis {axis}, as {roles['nu_log']} has")
        if wanted == 2 and role != "x0":
            width = shape[1 - axis]
            if widths.setdefault(role[0], width) != width:
                raise _wrong(layer, roles[role], info.shape, f"a width of {widths[role[0]]}")
    if "D" in roles:
        inputs, outputs, shape = widths["B"], widths["C"], tensors[roles["D"]].shape
        diagonal = shape == (outputs,) and inputs == outputs
        if not diagonal and shape != (outputs, inputs):
            raise _wrong(layer, roles["D"], shape, f"({outputs},) or ({outputs}, {inputs})")
    return states


def _length(layer: str, tensors: Tensors, name: str) -> int:
    shape = tensors[name].shape
    if len(shape) != 1 or shape[0] < 1:
        raise _wrong(layer, name, shape, "one axis, the states")
    return shape[0]


def _wrong(layer: str, name: str, shape: tuple[int, ...], wanted: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"Layer {layer}: {name} has shape {shape}; an LRU needs {wanted}.")


def _delay(layer: Layer, config: Config) -> int:
    """The configured delay; where a description leaves it open, what the layer's own names say."""
    chosen = str(config.get("delay", "auto"))
    if chosen != "auto":
        return int(chosen)
    return 1 if config.get("architecture") == "deep-ssm" or layer.tensors.get("B", "").endswith("Bp") else 0


def _parametrise(layer: Layer, read: Read, system: DiagonalSystem, size: int) -> dict[str, np.ndarray]:
    """nu_log, theta_log, gamma_log and B of given poles and input map.

    gamma keeps its published meaning, sqrt(1 - |λ|²), and B is divided by what the file will hold of it.

    Raises:
        UnsupportedModelError: |λ| ≥ 1, which exp(-exp(nu_log)) cannot be.
    """
    names, poles = layer.tensors, np.asarray(system.poles)[0]
    modulus = np.maximum(np.abs(poles), _SMALLEST_MODULUS)
    if np.any(modulus >= 1):
        worst = int(np.argmax(modulus))
        raise UnsupportedModelError(
            f"Layer {layer.name}: an LRU cannot store the pole {poles[worst]:.6g}, its modulus is not below 1; "
            "use a method that keeps the poles."
        )
    angle = np.mod(np.angle(poles), 2 * np.pi)
    log_angle = np.log(np.where(angle == 0, 1, angle))
    values = {
        "nu_log": np.log(-np.log(modulus)),
        "theta_log": np.where(angle == 0, _LOG_OF_NO_ANGLE, log_angle),
        "gamma_log": 0.5 * np.log1p(-(modulus**2)),
    }
    new = {
        names[role]: store(pad_states(value, size), read(names[role]), names[role]) for role, value in values.items()
    }
    gamma = np.exp(new[names["gamma_log"]].astype(np.float64))
    B = pad_states(np.asarray(system.B)[0], size, axis=0) / gamma[:, None]
    return {**new, **write_complex(names, "B", read, B)}
