"""LinOSS (Rusch & Rus, arXiv 2410.03943): every index is a forced oscillator, y'' = -A y + B u, read by Re(C y) + D u.

With Δ = sigmoid(steps) and A = relu(A_diag), the state (y', y) of one index follows a real 2×2 matrix M:

    IM    M = S·[[1, -ΔA], [Δ, 1]],  S = 1/(1 + Δ²A);   |λ|² = S: the oscillation decays
    IMEX  M = [[1, -ΔA], [Δ, 1 - Δ²A]];                 |λ| = 1: the energy is conserved

M has two eigenvalues, so a stored state is two poles. The response of y to its drive is r₊λ₊^k + r₋λ₋^k; the residues
r go into the input map, so that both poles of a state share the one read-out the checkpoint has for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Family, Forward, Layer, Match, Option, Read, Tensors, task_option
from lastcli.families.equinox.names import EQUINOX_KEYS, EQUINOX_OPTIONS, equinox_lacks, find_equinox
from lastcli.families.linoss.names import STATE_AXIS, candidates, check_shapes, roles_of
from lastcli.families.parts.leaves import layer_name, match_of
from lastcli.families.parts.storage import gather, pad_states, read_complex, store, write_complex

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["LinOSS"]

# Without stiffness M is a double integrator and has one eigenvector only. At this Δ²A the oscillator turns by 1e-4 a
# step, which is the integrator to 1e-3 over a thousand steps, and the eigenvectors are still told apart in float32.
_LEAST_STIFFNESS = 1e-8
# An inert state is a stable oscillator without input and output.
_INERT = {"A_diag": 1.0}


class LinOSS(Family):
    """Linear oscillatory state space layers, LinOSS-IM and LinOSS-IMEX."""

    name = "linoss"
    title = "LinOSS (IM and IMEX)"
    help = "forced oscillators, two poles a state"
    source = "arXiv 2410.03943, github.com/tk-rusch/linoss"
    page = "docs/families/linoss.md"
    axes = MappingProxyType({role: (None, axis) for role, axis in STATE_AXIS.items()})
    options = (
        Option(
            "discretization", str, "IM", "how the oscillator is stepped: implicit or implicit-explicit", ("IM", "IMEX")
        ),
        task_option("classification"),
        *EQUINOX_OPTIONS,
        Option("norm", str, "batch", "normalisation before a layer", ("batch", "layer", "none")),
        Option(
            "gelu",
            str,
            "auto",
            "which GELU follows a layer: equinox's approximation by tanh, or PyTorch's exact one; auto: exact where "
            "PyTorch's count of batches is in the file",
            ("auto", "tanh", "exact"),
        ),
    )

    def match(self, tensors: Tensors) -> Match:
        """Layers are the paths that hold `A_diag`, or `steps` beside B and C."""
        found = ((prefix, roles_of(leaves)) for prefix, leaves in candidates(tensors).items())
        return match_of(
            self.name,
            ((prefix, len(roles), [role for role in STATE_AXIS if role not in roles]) for prefix, roles in found),
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """Nothing: both discretisations have the same tensors."""
        return {}

    def settled(self, tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
        """Which GELU the code that wrote the file has."""
        model = find_equinox(tensors, list(candidates(tensors)))
        return {} if model is None else {"gelu": ("exact" if model.torch else "tanh", "assumed")}

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """Everything about the published model around other layers."""
        known = find_equinox(tensors, list(candidates(tensors))) is not None
        return frozenset() if known else EQUINOX_KEYS | {"task", "norm", "gelu"}

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """Every LinOSS layer, its shapes checked."""
        found = []
        for prefix, leaves in candidates(tensors).items():
            roles = roles_of(leaves)
            states = check_shapes(roles, tensors)
            found.append(Layer(layer_name(prefix), states, 1, roles))
        return tuple(found)

    def refuses_moved_poles(self, layer: Layer, config: Config) -> str | None:
        """Two poles of a state are bound to each other."""
        return (
            f"Layer {layer.name}: LinOSS cannot store freely chosen poles, only those of an oscillator; use a method "
            "that keeps the poles."
        )

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """One MIMO group, two poles a state."""
        from lastcli.engine.system import DiagonalSystem

        names = layer.tensors
        stiffness = np.maximum(read(names["A_diag"]).astype(np.float64), 0.0)
        step = 1.0 / (1.0 + np.exp(-read(names["steps"]).astype(np.float64)))
        poles, residues = _modes(str(config.get("discretization", "IM")), stiffness, step)
        B, C = read_complex(names, "B", read), read_complex(names, "C", read)
        D = np.diag(read(names["D"]).astype(np.float64)) if "D" in names else None
        return DiagonalSystem(
            poles=poles.reshape(1, -1),
            B=(residues[..., None] * B[:, None, :]).reshape(1, -1, B.shape[1]),
            C=np.repeat(C, 2, axis=1)[None, None],
            D=None if D is None else D[None],
            modes=2,
            shared_readout=True,
            fixed_poles=True,
            feedthrough="none" if D is None else "diagonal",
        )

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Gathered tensors; a new read-out is written where both poles of every state share it."""
        self.check_moved_poles(layer, config, reduction)
        names, kept = layer.tensors, np.asarray(reduction.kept)
        new: dict[str, np.ndarray | None] = {
            names[role]: gather(read(names[role]), kept, size, state=axis, fill=_INERT.get(role, 0.0))
            for role, axis in STATE_AXIS.items()
        }
        if reduction.changed == "readout":
            C = _shared_readout(layer.name, np.asarray(reduction.system.C)[0, 0])
            new.update(write_complex(names, "C", read, pad_states(C, size)))
            if "D" in names and reduction.system.D is not None:
                D = np.diagonal(np.asarray(reduction.system.D)[0])
                new[names["D"]] = store(D, read(names["D"]), names["D"])
        return new

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The published model; None around other layers, and where the statistics of its norms are missing."""
        from lastcli.families.equinox.model import equinox_forward

        return equinox_forward(tensors, config, layers)

    def lacks(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> str | None:
        """The statistics, where only they are missing."""
        return equinox_lacks(tensors, config, layers)


def _modes(discretization: str, A: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poles λ± and residues r± of every oscillator, (P, 2) each.

    M's bottom row and the drive F give the response of y: h[0] = F₂, h[1] = (M F)₂, and the residues follow from both.
    """
    stiff = np.maximum(step**2 * A, _LEAST_STIFFNESS)
    if discretization == "IM":
        S = 1.0 / (1.0 + stiff)
        plus = S * (1 + 1j * np.sqrt(stiff))
        minus = plus.conj()
        h0 = S * step**2
        h1 = S * (step * (S * step) + h0)
    else:
        # At Δ²A = 4 both eigenvalues are -1 and the eigenvectors coincide again.
        stiff = np.where(np.abs(stiff - 4) < _LEAST_STIFFNESS, 4 - _LEAST_STIFFNESS, stiff)
        root = np.sqrt((stiff * (stiff / 4 - 1)).astype(np.complex128))
        plus, minus = _not_inside(1 - stiff / 2 + root), _not_inside(1 - stiff / 2 - root)
        h0 = step**2
        h1 = step * step + (1 - stiff) * h0
    gap = plus - minus
    residues = np.stack([(h1 - minus * h0) / gap, (plus * h0 - h1) / gap], axis=-1)
    return np.stack([plus, minus], axis=-1), residues


def _not_inside(poles: np.ndarray) -> np.ndarray:
    """Conserved oscillations keep |λ| = 1: rounding must not make them look stable."""
    modulus = np.abs(poles)
    return np.where(np.abs(modulus - 1) < 1e-12, poles / modulus * (1 + 4e-16), poles)


def _shared_readout(layer: str, C: np.ndarray) -> np.ndarray:
    """C (p, K) of a read-out (p, 2K) whose two columns of a state agree.

    Raises:
        UnsupportedModelError: they differ, which the checkpoint has no place for.
    """
    first, second = C[:, 0::2], C[:, 1::2]
    if not np.allclose(first, second, rtol=1e-9, atol=1e-12 * (np.abs(C).max() if C.size else 0.0)):
        raise UnsupportedModelError(
            f"Layer {layer}: a LinOSS checkpoint has one read-out for both poles of an oscillator, and this refit "
            "needs two; use --refit none."
        )
    return first
