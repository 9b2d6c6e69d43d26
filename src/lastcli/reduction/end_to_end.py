"""The error of the whole model's outputs for any division of the states among its layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import System
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import model_outputs
from lastcli.model.checkpoint import Checkpoint
from lastcli.reduction.calibration import layer_signals
from lastcli.reduction.exchange import Layer
from lastcli.reduction.sensitivity import output_change

__all__ = ["OutputError"]

# Calibration sequences that a division is measured on, and how many at a time.
_SEQUENCES = 256
_BATCH = 64


class OutputError:
    """Mean divergence of the outputs from the original's, each layer keeping its best states with refitted read-outs.

    Args:
        checkpoint: the model.
        systems: its layers, or those of an earlier stage of one pruning; the original's outputs are the aim of all.
        ranks: (sets, N) a layer, what its states are worth; the best of every set stay.
        moments: calibrated, one a layer.
        split: calibration inputs; labels are not looked at.
        pinned: (sets, N) bool a layer, states that stay in any division; None for none.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        systems: Sequence[System],
        ranks: Sequence[np.ndarray],
        moments: Sequence[Any],
        split: Split,
        pinned: Sequence[np.ndarray] | None = None,
    ):
        self.checkpoint = checkpoint
        self.systems = systems
        self.moments = moments
        self._known: dict[tuple[int, int], System] = {}
        self.split = split.thinned(_SEQUENCES)
        held = [np.zeros(rank.shape, bool) for rank in ranks] if pinned is None else pinned
        self._pinned = [int(mask.sum(axis=1).max(initial=0)) for mask in held]
        self._orders = [
            np.argsort(-np.where(mask, np.inf, rank), axis=1, kind="stable") for rank, mask in zip(ranks, held)
        ]

    def layers(self, min_states: int) -> list[Layer]:
        """The bounds of every layer: the floor that was asked for, one state where it has any, its pinned states."""
        sizes = [order.shape for order in self._orders]
        return [
            Layer(cost=sets, least=min(max(min_states, fixed, 1), states), most=states)
            for (sets, states), fixed in zip(sizes, self._pinned)
        ]

    def kept(self, counts: Sequence[int]) -> list[np.ndarray]:
        """The best `counts` states (sets, K) of every layer, in ascending order."""
        return [np.sort(order[:, :count], axis=1) for order, count in zip(self._orders, counts)]

    def __call__(self, counts: Sequence[int]) -> float:
        """Kullback-Leibler divergence of class probabilities, or mean squared difference; see `output_change`."""
        forward = self.checkpoint.require_forward()
        outputs = self._outputs(tuple(map(self._reduced, range(len(counts)), self.kept(counts))))
        return output_change(zip(self._original, outputs), forward.task)

    @cached_property
    def _original(self) -> list[np.ndarray]:
        return self._outputs(tuple(self.checkpoint.systems))

    def _outputs(self, systems: tuple[System, ...]) -> list[np.ndarray]:
        size = min(self.split.n, _BATCH)
        forward = self.checkpoint.require_forward()
        return list(model_outputs(forward, self.checkpoint.params, systems, self.split, batch_size=size))

    def _reduced(self, layer: int, kept: np.ndarray) -> System:
        """One layer with these states and the best read-out for them, in the original's shapes: one program for all."""
        key = layer, kept.shape[1]
        if key not in self._known:
            system, batches = self.systems[layer], self.split.batches(min(self.split.n, _BATCH))
            forward, params = self.checkpoint.require_forward(), self.checkpoint.params
            again = partial(layer_signals, forward, params, self.systems, self.systems, layer, batches)
            engine = engine_of(system)
            self._known[key] = engine.embed(system, engine.refit(system, kept, self.moments[layer], again))
        return self._known[key]
