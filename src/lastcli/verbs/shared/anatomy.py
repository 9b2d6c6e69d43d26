"""What a report draws: poles and energies of the full model, and which states every reduced one keeps."""

from __future__ import annotations

from collections.abc import Sequence
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

__all__ = ["energies_for", "full_anatomy", "reduced_anatomy"]


def full_anatomy(checkpoint: Checkpoint, energies: Sequence[np.ndarray] | None = None, method: str = "") -> Anatomy:
    """Of a model that nothing is removed from; `energies` (sets, N) a layer are those of `method`."""
    names = [layer.name for layer in checkpoint.layers]
    layers = _layers(names, checkpoint.systems, energies)
    return Anatomy(layers=layers, energy_of=method if energies is not None else "", before=full_costs(checkpoint))


def reduced_anatomy(
    session: Session,
    compressor: Compressor,
    pairs: Sequence[tuple[Method, Refit]],
    reductions: Sequence[Sequence[Reduction]],
    costs: Sequence[Costs],
    shown: int | None,
) -> Anatomy:
    """Of reduced models, one for each pair of method and refit; `shown` is the one to show layer by layer."""
    pair = pairs[0] if shown is None else pairs[shown]
    energies, method = energies_for(compressor, *pair)
    after = () if shown is None else tuple(_poles(reduction.system) for reduction in reductions[shown])
    return Anatomy(
        layers=_layers(compressor.names, compressor.systems, energies),
        energy_of=method,
        kept=tuple(
            () if method.moves_poles else tuple(np.asarray(reduction.kept) for reduction in found)
            for (method, _), found in zip(pairs, reductions)
        ),
        shown=shown,
        poles_after=after,
        before=full_costs(session.checkpoint),
        costs=tuple(costs),
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
