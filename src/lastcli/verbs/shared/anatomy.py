"""What a report draws: poles and energies of the full model, and which states every reduced one keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lastcli.engine.protocol import Reduction, System
from lastcli.engine.system import DiagonalSystem
from lastcli.errors import LastError
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import METHODS, REFITS, Method, Refit
from lastcli.reduction.compressor import Compressor
from lastcli.results import Anatomy, Costs, LayerAnatomy
from lastcli.verbs.shared.costs import full_costs
from lastcli.verbs.shared.session import Session

__all__ = ["Drawn", "drawn", "energies_for", "full_anatomy", "reduced_anatomy"]


@dataclass(frozen=True, eq=False)
class Drawn:
    """What pictures of one reduced model are drawn from.

    Attributes:
        costs: what it weighs, and what a step costs.
        kept: (sets, K) indices of the states that each layer keeps; empty for a method that moves the poles.
        poles: (P',) complex of each layer, None where they depend on the input.
    """

    costs: Costs
    kept: tuple[np.ndarray, ...]
    poles: tuple[np.ndarray | None, ...]


def drawn(method: Method, reductions: Sequence[Reduction], costs: Costs) -> Drawn:
    """What is drawn of these layers."""
    kept = () if method.moves_poles else tuple(np.asarray(reduction.kept) for reduction in reductions)
    return Drawn(costs, kept, tuple(_poles(reduction.system) for reduction in reductions))


def full_anatomy(checkpoint: Checkpoint, energies: Sequence[np.ndarray] | None = None, method: str = "") -> Anatomy:
    """Of a model that nothing is removed from; `energies` (sets, N) a layer are those of `method`."""
    names = [layer.name for layer in checkpoint.layers]
    layers = _layers(names, checkpoint.systems, energies)
    return Anatomy(layers=layers, energy_of=method if energies is not None else "", before=full_costs(checkpoint))


def reduced_anatomy(
    session: Session,
    compressor: Compressor,
    pairs: Sequence[tuple[Method, Refit]],
    models: Sequence[Drawn],
    shown: int,
) -> Anatomy:
    """Of reduced models, one for each pair of method and refit; `shown` is the one to show layer by layer."""
    energies, method = energies_for(compressor, *pairs[shown])
    return Anatomy(
        layers=_layers(compressor.names, compressor.systems, energies),
        energy_of=method,
        kept=tuple(one.kept for one in models),
        shown=shown,
        poles_after=models[shown].poles,
        before=full_costs(session.checkpoint),
        costs=tuple(one.costs for one in models),
    )


def energies_for(compressor: Compressor, method: Method, refit: Refit) -> tuple[list[np.ndarray] | None, str]:
    """Energies of a method, or of LAST where it ranks no single states; (None, "") where neither has any."""
    for one, its in ((method, refit), (METHODS["last"], REFITS["none"])):
        if one.moves_poles:
            continue
        try:
            return compressor.energies(one, its), one.name
        except LastError:
            continue
    return None, ""


def _layers(
    names: Sequence[str], systems: Sequence[System], energies: Sequence[np.ndarray] | None
) -> tuple[LayerAnatomy, ...]:
    found = [None] * len(names) if energies is None else energies
    return tuple(
        LayerAnatomy(name=name, states=system.states, sets=system.sets, poles=_poles(system), energy=energy)
        for name, system, energy in zip(names, systems, found)
    )


def _poles(system: Any) -> np.ndarray | None:
    return np.asarray(system.poles).reshape(-1) if isinstance(system, DiagonalSystem) else None
