"""Mega's multi-dimension damped exponential moving average (Ma et al., arXiv 2209.10655, section 3.1).

Every channel has n real states, expanded by β and read by γ; with p = σ(delta) and q = 1 - σ(delta)·σ(alpha)::

    x[k] = q ∘ x[k-1] + p ∘ β u[k],    y[k] = sqrt(1/n) Σ γ ∘ x[k] + ω u[k]

The code multiplies by sqrt(1/n) of its own n, so γ is rescaled by sqrt(n'/n) when n changes. A bidirectional layer has
2D rows: the second half reads the sequence backwards with poles of its own. Here that half is D more systems which
run on the reversed input; whoever simulates the layer reverses (`lastcli.families.mega.attention`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Family, Forward, Layer, Match, Option, Read, Tensors
from lastcli.families.mega.config import options_of, with_states
from lastcli.families.mega.model import MODEL_OPTIONS, idle_options, mega_forward, proven, settled_options
from lastcli.families.parts.leaves import expect_shape, groups, layer_name, match_of
from lastcli.families.parts.multi_siso import inverse_transform, transform
from lastcli.families.parts.storage import gather, store

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["Mega"]

# transformers' names for the same tensors
_ALIASES = {
    "damping_factor": "delta",
    "decay_factor": "alpha",
    "ema_expansion_matrix": "beta",
    "kernel_projection_matrix": "gamma",
    "residual_weight": "omega",
}
_SPELLINGS = {role: alias for alias, role in _ALIASES.items()}
_ROLES = ("delta", "alpha", "beta", "gamma")
# Relative to the real part: what rounding leaves in a read-out of real states, and no more.
_ROUNDING = 1e-6


class Mega(Family):
    """Real diagonal recurrences, n of them in every channel."""

    name = "mega"
    title = "Mega (damped EMA)"
    help = "real damped moving averages, several in every channel"
    source = "arXiv 2209.10655, github.com/facebookresearch/mega"
    page = "docs/families/mega.md"
    input_layout = "lbh"
    axes = MappingProxyType(dict.fromkeys(_ROLES, (0, 1)))
    options = (
        Option(
            "gain",
            str,
            "delta",
            "which sigmoid scales the input: delta (the released code, transformers) or alpha (its later rewrite)",
            ("delta", "alpha"),
        ),
        Option("bidirectional", bool, False, "whether the second half of a layer's rows reads backwards"),
        *MODEL_OPTIONS,
    )

    def match(self, tensors: Tensors) -> Match:
        """Layers are the paths where two of delta, alpha, beta have the shape (D, n, 1)."""
        return match_of(
            self.name,
            ((prefix, len(_roles(leaves)), _lacking(leaves)) for prefix, leaves in _candidates(tensors).items()),
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """The direction, from the rows against the residual; what the model around the layers shows of its norms."""
        found = proven(tensors, self.match(tensors).layers)
        both = {_is_bidirectional(_roles(leaves), tensors) for leaves in _candidates(tensors).values()}
        if len(both) == 1 and None not in both:
            found["bidirectional"] = both.pop()
        return found

    def settled(self, tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
        """The attention function that the published runs on such inputs had."""
        return settled_options(tensors, self.match(tensors).layers)

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """What the model around the layers, where it is known, has no choice in."""
        return idle_options(tensors, self.match(tensors).layers)

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """Every EMA of the checkpoint; a row of its tensors is one index set."""
        found = []
        for prefix, leaves in _candidates(tensors).items():
            roles = _roles(leaves)
            shape = tensors[roles["gamma"]].shape
            if len(shape) != 2 or 0 in shape:
                raise UnsupportedModelError(f"Tensor {roles['gamma']} has shape {shape}; expected (channels, states).")
            rows, states = shape
            for role in ("delta", "alpha", "beta"):
                expect_shape(tensors[roles[role]], (rows, states, 1))
            if "omega" in roles:
                expect_shape(tensors[roles["omega"]], (rows,), (rows // 2 if rows % 2 == 0 else rows,))
            found.append(Layer(layer_name(prefix), states, rows, roles))
        return tuple(found)

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """One group a row, forward rows first; the residual ω belongs to the forward rows."""
        from lastcli.engine.system import DiagonalSystem

        names = layer.tensors
        delta, alpha = (transform(read(names[role])[..., 0], "sigmoid") for role in ("delta", "alpha"))
        gain = delta if config.get("gain", "delta") == "delta" else alpha
        B = gain * read(names["beta"])[..., 0].astype(np.float64)
        C = read(names["gamma"]).astype(np.float64) * np.sqrt(1 / layer.states)
        D = None
        if "omega" in names:
            omega = read(names["omega"]).astype(np.float64)
            D = np.concatenate([omega, np.zeros(layer.sets - len(omega))])[:, None, None]
        return DiagonalSystem(
            poles=(1 - delta * alpha).astype(np.complex128),
            B=B[..., None].astype(np.complex128),
            C=C[:, None, None, :].astype(np.complex128),
            D=D,
            sets=layer.sets,
            feedthrough="none" if D is None else "diagonal",
            multi=True,
            real_readout=True,
        )

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Rows gathered one by one; γ rescaled to the new n, or computed from a new read-out."""
        names, stored = layer.tensors, {role: read(name) for role, name in layer.tensors.items()}
        kept, reduced = np.asarray(reduction.kept), reduction.system
        count = kept.shape[1]
        new = {role: gather(stored[role], kept, size, state=1, group=0) for role in _ROLES}
        if reduction.changed == "none":
            if size != layer.states:
                rescaled = new["gamma"].astype(np.float64) * np.sqrt(size / layer.states)
                new["gamma"] = store(rescaled, stored["gamma"], names["gamma"])
        else:
            C = _real(np.asarray(reduced.C)[:, 0, 0], layer.name, "read-out")
            new["gamma"][:, :count] = store(C * np.sqrt(size), stored["gamma"], names["gamma"])
            if reduced.D is not None and "omega" in stored:
                both = np.asarray(reduced.D)[:, 0, 0].reshape(-1, len(stored["omega"]))
                new["omega"] = store(both.sum(axis=0), stored["omega"], names["omega"])
        if reduction.changed == "all":
            poles = _real(np.asarray(reduced.poles), layer.name, "poles")
            B = _real(np.asarray(reduced.B)[..., 0], layer.name, "input map")
            if poles.min(initial=1.0) <= 0 or poles.max(initial=0.0) >= 1:
                raise UnsupportedModelError(
                    f"Layer {layer.name}: Mega stores poles between 0 and 1 only; use a method that keeps the poles."
                )
            # Both sigmoids take the same share of 1 - q.
            share = store(inverse_transform(np.sqrt(1 - poles), "sigmoid"), stored["delta"], names["delta"])
            new["delta"][:, :count, 0] = new["alpha"][:, :count, 0] = share
            new["beta"][:, :count, 0] = store(B / transform(share, "sigmoid"), stored["beta"], names["beta"])
        return {names[role]: array for role, array in new.items()}

    def read_config(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """`MegaConfig` of transformers."""
        return options_of(document)

    def written_config(self, document: Mapping[str, Any], states: Sequence[int]) -> dict[str, Any]:
        """`MegaConfig` of transformers, with another `ema_projection_size`."""
        return with_states(document, states)

    def lacks(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> str | None:
        """Causal attention."""
        if config["causal"] == "true":
            return "its attention is causal (is_decoder), which is not built in: give the mask with your own code"
        return None

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """fairseq's classifiers and the encoders of transformers; None for other models."""
        return mega_forward(tensors, config, layers)


def _candidates(tensors: Tensors) -> dict[str, dict[str, str]]:
    """Paths with at least two tensors of the shape (D, n, 1): alpha, beta and gamma alone are names of norms too."""
    found = {}
    for prefix, leaves in groups(tensors).items():
        roles = _roles(leaves)
        wide = [role for role in ("delta", "alpha", "beta") if role in roles and _is_wide(tensors[roles[role]].shape)]
        if len(wide) >= 2:
            found[prefix] = leaves
    return found


def _is_bidirectional(roles: Mapping[str, str], tensors: Tensors) -> bool | None:
    """Whether a layer has two rows a channel; None where nothing says how many channels there are."""
    if "omega" not in roles or "gamma" not in roles:
        return None
    rows, channels = (tensors[roles[role]].shape[:1] for role in ("gamma", "omega"))
    return None if not rows or not channels else rows[0] == 2 * channels[0]


def _is_wide(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] == 1


def _roles(leaves: Mapping[str, str]) -> dict[str, str]:
    roles = {_ALIASES.get(leaf, leaf): name for leaf, name in leaves.items()}
    return {role: roles[role] for role in (*_ROLES, "omega") if role in roles}


def _lacking(leaves: Mapping[str, str]) -> list[str]:
    """Leaves that a layer still needs, in the spelling of the others."""
    roles, renamed = _roles(leaves), any(leaf in _ALIASES for leaf in leaves)
    return [_SPELLINGS[role] if renamed else role for role in _ROLES if role not in roles]


def _real(values: np.ndarray, layer: str, what: str) -> np.ndarray:
    """The real part of values that are real.

    Raises:
        UnsupportedModelError: they are not, and the checkpoint has no place for an imaginary part.
    """
    if np.abs(values.imag).max(initial=0.0) > _ROUNDING * np.abs(values.real).max(initial=1e-300):
        raise UnsupportedModelError(
            f"Layer {layer}: Mega stores real states only, and this reduction has a complex {what}; use a method that "
            "keeps the poles."
        )
    return values.real
