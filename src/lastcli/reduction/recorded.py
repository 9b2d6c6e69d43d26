"""Layer inputs that were recorded while somebody else's code ran the model: calibration without a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lastcli.engine.diagonal import output as output_of
from lastcli.engine.moments import Moments
from lastcli.engine.reductions import residual
from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.errors import UsageError

__all__ = ["LayerInputs"]


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """What `lastcli.capture` recorded of one checkpoint.

    Attributes:
        name: the file, for messages.
        moments: of every layer over all that was recorded, in the order of the model.
        sequences: u (n, L, H) and weights (n, L) of every layer, a sample of what was recorded; None without one.
        padded_backwards: whether padding counts, since a layer reads backwards.
    """

    name: str
    moments: tuple[Moments, ...]
    sequences: tuple[tuple[np.ndarray, np.ndarray] | None, ...]
    padded_backwards: bool = False

    @property
    def sampled(self) -> bool:
        """Whether every layer has sequences, not moments alone."""
        return all(kept is not None for kept in self.sequences)

    @property
    def steps(self) -> int | None:
        """The longest sequence of the sample, None without one."""
        return max((kept[0].shape[1] for kept in self.sequences if kept is not None), default=None)

    def error(self, layer: int, system: DiagonalSystem, reduction: Reduction) -> float | None:
        """Relative error of a reduced layer's output over what was recorded, D left out of the scale as in H2 errors.

        Over all of it where the poles are the original's; else over the sample, and None without one.
        """
        if reduction.changed != "all":
            return float(np.sqrt(residual(system, reduction, self.moments[layer])))
        if self.sequences[layer] is None:
            return None
        wrong = whole = 0.0
        for u, target, weights in self.signals(layer, system):
            direct = np.zeros_like(target) if system.D is None else output_of(_without_states(system), u)
            share = weights[..., None]
            wrong += float((share * (target - output_of(reduction.system, u)) ** 2).sum())
            whole += float((share * (target - direct) ** 2).sum())
        return float(np.sqrt(wrong / whole)) if whole > 0 else 0.0

    def signals(self, layer: int, system: DiagonalSystem) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(u, the original layer's output, weights) of the sample, as `calibration.layer_signals` yields them.

        Raises:
            UsageError: there is no sample.
        """
        kept = self.sequences[layer]
        if kept is None:
            raise UsageError(f"{self.name} holds moments and no sequences; record again with sample=64.")
        u, weights = kept
        yield u, output_of(system, u), weights


def _without_states(system: DiagonalSystem) -> DiagonalSystem:
    """The layer's D alone."""
    return system.replace(C=np.zeros_like(system.C))
