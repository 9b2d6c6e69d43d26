"""What a state is worth: the energy of every stored state of a layer, by one of several criteria or by one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lastcli.engine.state_norms import h2, hinf
from lastcli.engine.system import DiagonalSystem, sum_by_set
from lastcli.errors import InputError, UnsupportedModelError, UsageError

__all__ = [
    "CRITERIA",
    "Criterion",
    "check_stable",
    "contribution",
    "energies",
    "h2",
    "hinf",
    "magnitude",
    "needed",
    "random",
    "unstable",
]

# What a function may ask for beside the system.
_KEYWORDS = ("compat", "seed", "parameters", "moments")


@dataclass(frozen=True)
class Criterion:
    """A rule for what a state is worth.

    Attributes:
        name: of the criterion, for messages.
        help: what it measures, one line.
        source: the paper it comes from; empty where there is none.
        function: system → energies (sets, N): not negative, infinite where a state must stay.
        needs: which of the keywords of `energies` the function takes beside the system.
    """

    name: str
    help: str
    source: str
    function: Callable[..., np.ndarray]
    needs: tuple[str, ...] = ()

    @classmethod
    def of(cls, function: Callable[..., np.ndarray]) -> Criterion:
        """A function of one's own; it is given those keywords of `energies` that its signature names.

        Raises:
            UsageError: it cannot be called with a system and those keywords.
        """
        name = getattr(function, "__name__", repr(function))
        try:
            signature = inspect.signature(function)
            needs = tuple(keyword for keyword in _KEYWORDS if keyword in signature.parameters)
            signature.bind(None, **dict.fromkeys(needs))
        except (TypeError, ValueError):
            raise UsageError(
                f"The criterion {name} cannot be called with a layer alone; give a function of a `DiagonalSystem`."
            ) from None
        lines = (inspect.getdoc(function) or "").splitlines()
        return cls(name, lines[0] if lines else "", "", function, needs)


def energies(
    system: Any,
    criterion: str | Callable[..., np.ndarray],
    *,
    compat: bool = False,
    seed: int = 0,
    parameters: np.ndarray | None = None,
    moments: Callable[[], Any] | None = None,
    known: Mapping[str, Criterion] | None = None,
) -> np.ndarray:
    """Energy of every stored state, (sets, N).

    Args:
        system: the layer, NumPy float64.
        criterion: a name in `CRITERIA`, or a function of one's own: system → (sets, N).
        compat: reproduce the published code where it differs; for the criteria that know the word.
        seed: of criteria that draw; give every layer its own.
        parameters: (sets, N) sums of squares of the STORED parameters of a state, for `magnitude`.
        moments: gives the moments of the layer on calibration inputs, for criteria that measure; None without inputs.
        known: the criteria of the layer's kind by name; those of diagonal layers where None.

    Raises:
        UsageError: there is no such criterion, or a function of one's own gives no energies.
    """
    given = {"compat": compat, "seed": seed, "parameters": parameters, "moments": moments}
    if not isinstance(criterion, str):
        own = Criterion.of(criterion)
        return _checked(own, system, own.function(system, **{name: given[name] for name in own.needs}))
    named = CRITERIA if known is None else known
    if criterion not in named:
        raise UsageError(f"There is no criterion {criterion!r}; known criteria: {', '.join(named)}.")
    chosen = named[criterion]
    return chosen.function(system, **{name: given[name] for name in chosen.needs})


def _checked(criterion: Criterion, system: Any, found: object) -> np.ndarray:
    """What a function of the user's own says, as energies."""
    shape = (system.sets, system.states)
    try:
        energy = np.asarray(found, np.float64)
    except (TypeError, ValueError):
        raise UsageError(
            f"The criterion {criterion.name} gives {type(found).__name__}, not an array of numbers."
        ) from None
    if energy.shape != shape:
        raise UsageError(
            f"The criterion {criterion.name} gives energies of shape {energy.shape} for a layer of {system.sets} index "
            f"sets with {system.states} states each; it must give {shape}."
        )
    bad = np.argwhere(np.isnan(energy) | (energy < 0))
    if len(bad):
        raise UsageError(
            f"The criterion {criterion.name} gives {energy[tuple(bad[0])]:.6g} for state {bad[0][1]} of index set "
            f"{bad[0][0]}; an energy is not negative, and infinite where a state must stay."
        )
    return energy


def magnitude(system: DiagonalSystem, *, parameters: np.ndarray | None = None) -> np.ndarray:
    """Sum of squares of the parameters of each state, (sets, N).

    Args:
        system: the layer.
        parameters: (sets, N) sums of squares of all STORED parameters of a state (λ, b, c and step as the tensors
            have them), which only the model family knows. None: those of the discrete λ, B and C instead.
    """
    if parameters is not None:
        return np.asarray(parameters, np.float64).reshape(system.sets, system.states)
    squares = np.abs(system.poles) ** 2
    squares = squares + (np.abs(system.B) ** 2).sum(axis=2) + (np.abs(system.C) ** 2).sum(axis=(1, 2))
    return sum_by_set(squares.reshape(system.groups, system.states, system.modes).sum(axis=2), system.sets)


def random(system: Any, *, seed: int = 0) -> np.ndarray:
    """Uniform draws in [0, 1), (sets, N); give every layer a seed of its own."""
    return np.random.default_rng(seed).random((system.sets, system.states))


def contribution(system: DiagonalSystem, *, moments: Callable[[], Any] | None = None) -> np.ndarray:
    """Energy of what each state alone adds to the layer's outputs on the calibration inputs, (sets, N).

    E[‖W_q f_q‖²] over the features f_q of a state and its columns W_q of the read-out.

    Raises:
        UsageError: there are no calibration inputs.
    """
    from lastcli.engine.features import block_size, readout_of

    measured = needed(moments)
    size = block_size(system)
    blocks = np.asarray(measured.features).reshape(system.groups, system.states, size, system.states, size)
    own = np.einsum("gnanb->gnab", blocks)
    W = np.asarray(readout_of(system)).reshape(system.groups, system.outputs, system.states, size)
    return sum_by_set(np.einsum("gpna,gnab,gpnb->gn", W, own, W), system.sets)


def needed(moments: Callable[[], Any] | None) -> Any:
    """The moments, where a criterion cannot do without.

    Raises:
        UsageError: there are no calibration inputs.
    """
    if moments is None:
        raise UsageError("This criterion measures states on inputs; give an .npz file with --calibration.")
    return moments()


CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion("hinf", "peak gain of a state alone, squared (H-infinity)", "arXiv 2411.02824", hinf, ("compat",)),
        Criterion("h2", "energy of a state's impulse response (H2)", "arXiv 2602.00534", h2, ("compat",)),
        Criterion("magnitude", "sum of squares of a state's parameters", "", magnitude, ("parameters",)),
        Criterion("random", "uniform draws, the baseline of every comparison", "", random, ("seed",)),
        Criterion("contribution", "energy of what a state alone adds to the outputs", "", contribution, ("moments",)),
    )
}


def unstable(systems: Sequence[DiagonalSystem], margin: float = 0.0) -> list[np.ndarray]:
    """Which stored states have a pole with |λ| ≥ 1 + margin, one (sets, N) bool array a layer."""
    masks = []
    for system in systems:
        outside = (np.abs(system.poles) >= 1 + margin).reshape(system.groups, system.states, system.modes).any(axis=2)
        masks.append(outside.reshape(-1, system.sets, system.states).any(axis=0))
    return masks


def check_stable(systems: Sequence[DiagonalSystem], names: Sequence[str], allow: bool = False) -> None:
    """Refuse layers whose states have no finite norm.

    Args:
        systems: the layers.
        names: their names, for the message.
        allow: let |λ| ≥ 1 pass (`unstable` says where; such states are to be kept).

    Raises:
        InputError: a pole, B, C or D is NaN or infinite; names the layer and the first such state.
        UnsupportedModelError: a pole has |λ| ≥ 1 and `allow` is False; names the layer and the worst state.
    """
    for system, name in zip(systems, names, strict=True):
        _check_finite(system, name)
        radius = np.abs(system.poles)
        if allow or radius.size == 0 or radius.max() < 1:
            continue
        where = np.unravel_index(radius.argmax(), radius.shape)
        count = int(unstable([system])[0].sum())
        others = f" ({count} states in all)" if count > 1 else ""
        raise UnsupportedModelError(
            f"Layer {name}: {_state(system, *where)} has |λ| = {radius[where]:.9g}{others}, so its norm is not finite; "
            "check the discretisation options, or allow unstable states, which are then always kept."
        )


def _check_finite(system: DiagonalSystem, name: str) -> None:
    for label, array, axis in (("a pole", system.poles, 1), ("B", system.B, 1), ("C", system.C, 3)):
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            place = _state(system, bad[0][0], bad[0][axis])
            raise InputError(f"Layer {name}: {label} of {place} is NaN or infinite; the checkpoint is damaged.")
    if system.D is not None and not np.isfinite(system.D).all():
        raise InputError(f"Layer {name}: D holds NaN or infinite values; the checkpoint is damaged.")


def _state(system: DiagonalSystem, group: int, column: int) -> str:
    channel = f"channel {group}, " if system.multi else ""
    return f"{channel}state {column // system.modes}"
