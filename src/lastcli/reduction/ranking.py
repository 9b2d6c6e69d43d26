"""`Ranking`: what every state of one checkpoint is worth, by any criterion; everything computed once.

Energies come from norms, from the parameters, or from elimination on second moments of inputs or of white noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.engine import allocation
from lastcli.engine.engines import engine_of, unstable
from lastcli.engine.protocol import System
from lastcli.engine.system import diagonal
from lastcli.errors import UsageError
from lastcli.model.checkpoint import Checkpoint
from lastcli.parallel import layers, processes
from lastcli.plan import METHODS, REFITS, Method, Plan, Refit
from lastcli.reduction.feasible import require_norms
from lastcli.reduction.refits import done_bar

if TYPE_CHECKING:
    from lastcli.engine.elimination import Elimination
    from lastcli.evaluation.data import Batches, Split
    from lastcli.reduction.recorded import LayerInputs

__all__ = ["Ranking", "allocation_of"]

_BATCH = 64
# Matrices as large as the moments that an elimination holds at a time.
_MATRICES = 8
# |λ| - 1 of a state that turns without growing, in the rounding of a float32 checkpoint.
_ON_THE_CIRCLE = 1e-6


class Ranking:
    """Energies and scores of the states of one checkpoint.

    Args:
        checkpoint: the open checkpoint.
        plan: method-independent options: compat, seed, min_states, layout, refuse_unstable, batch_size.
        calibration: unlabelled inputs, or None.
        recorded: inputs of the layers instead, which need no forward pass, or None.
        progress: called as `progress(label, total)` for long steps; gives a context manager with `.advance(n)`.
        systems: the layers to reduce; those of the checkpoint, if None. An earlier stage of one pruning gives its own.

    Attributes:
        names: of the layers.
        systems: the layers that are reduced, float64.
        decisions: sentences about what was decided for the user.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        plan: Plan,
        calibration: Split | None = None,
        progress: Callable[..., Any] | None = None,
        recorded: LayerInputs | None = None,
        systems: Sequence[System] | None = None,
    ):
        self.checkpoint = checkpoint
        self.systems = checkpoint.systems if systems is None else tuple(systems)
        self.plan = plan
        self.calibration = calibration
        self.recorded = recorded
        self.progress = progress
        self.layout = plan.layout or checkpoint.family.layouts[0]
        self.names = [layer.name for layer in checkpoint.layers]
        self.decisions: list[str] = []
        self._energies: dict[Any, list[np.ndarray]] = {}
        self._eliminated: dict[str, list[Elimination]] = {}
        self._moments: dict[str, Sequence[Any]] = {}

    def decide(self, sentence: str) -> None:
        """Say what was decided, once."""
        if sentence not in self.decisions:
            self.decisions.append(sentence)

    @property
    def states(self) -> int:
        """Stored states of the whole model."""
        return sum(system.stored_states for system in self.systems)

    def energies(self, method: Method, refit: Refit = REFITS["none"]) -> list[np.ndarray]:
        """Energy of every state under the method's criterion, (sets, N) a layer.

        For obs it is the residual, relative to the layer's output energy, that the layer has reached when the state
        goes; on calibration inputs or white noise as the refit is.
        """
        if method.eliminates:
            return self._weighted(method, [found.share for found in self.eliminations(refit)])
        if method.criterion not in self._energies:
            if method.criterion in ("hinf", "h2"):
                require_norms(self.checkpoint, self.plan)
                if not all(system.time_invariant for system in self.systems):
                    self.decide(self.frozen_note)
            self._energies[method.criterion] = [self._energy(method, index) for index in range(len(self.systems))]
        return self._weighted(method, self._energies[method.criterion])

    def ranks(self, method: Method, refit: Refit) -> list[np.ndarray]:
        """What the layers compete by: the energies, for obs with what the read-outs cost beside their errors."""
        if method.eliminates:
            return self._weighted(method, [found.rank for found in self.eliminations(refit)])
        return self.energies(method, refit)

    def _weighted(self, method: Method, energies: list[np.ndarray]) -> list[np.ndarray]:
        if method.allocation != "sensitivity":
            return energies
        return [energy * weight for energy, weight in zip(energies, self.sensitivities)]

    @cached_property
    def sensitivities(self) -> np.ndarray:
        """Weight of each layer's residual: how much the model's outputs move with it, on the calibration inputs.

        Raises:
            UsageError: there are none.
        """
        from lastcli.reduction.sensitivity import layer_sensitivities

        if self.calibration is None:
            raise UsageError("obs-sensitivity needs inputs to calibrate on; give an .npz file with --calibration.")
        energies, moments = self.ranks(METHODS["obs"], REFITS["calibrated"]), self.moments("calibrated")
        with done_bar(self.progress, "Weighing layers", len(self.systems)) as advance:
            weights = layer_sensitivities(
                self.checkpoint.require_forward(),
                self.checkpoint.params,
                self.systems,
                energies,
                moments,
                self.calibration,
                progress=advance,
            )
        shown = ", ".join(f"{weight:.3g}" for weight in weights)
        self.decide(f"Layers weighted by how much the outputs move with them: {shown}.")
        return weights

    @property
    def frozen_note(self) -> str:
        """What norms at the mean step are worth on selective layers."""
        figures = self.checkpoint.family.frozen_figures
        return (
            "Warning: a selective layer has no norms; last and aire rank it frozen at the mean step of the calibration "
            "inputs (of the bias without any) and are baselines only; obs and contribution measure what its states do."
            + (f" {figures}" if figures else "")
        )

    def scores(self, method: Method) -> list[np.ndarray]:
        """Score of every state, comparable over all layers, (sets, N) a layer."""
        return allocation.scores(self.energies(method), allocation_of(method))

    def moments(self, source: str) -> Sequence[Any]:
        """Second moments of every layer: "h2" under white noise, "calibrated" on the calibration inputs."""
        if source not in self._moments:
            if source == "h2":
                require_norms(self.checkpoint, self.plan)
                from lastcli.engine.white_noise import white_noise_moments
                from lastcli.reduction.layer_moments import LayerMoments

                self._moments[source] = LayerMoments(
                    len(self.systems),
                    lambda layer: white_noise_moments(diagonal(self.systems[layer]), allow_unstable=True),
                )
            elif self.recorded is not None:
                self._moments[source] = list(self.recorded.moments)
            else:
                from lastcli.reduction.calibration import collect_moments

                with done_bar(self.progress, "Calibrating", len(self.batches)) as advance:
                    self._moments[source] = collect_moments(
                        self.checkpoint.require_forward(),
                        self.checkpoint.params,
                        self.systems,
                        self.batches,
                        progress=advance,
                    )
        return self._moments[source]

    @cached_property
    def batches(self) -> Batches:
        """The calibration inputs in batches."""
        if self.calibration is None:
            raise UsageError("This needs inputs to calibrate on; give an .npz file with --calibration.")
        size = self.plan.batch_size or min(_BATCH, -(-self.calibration.n // processes.count()))
        return self.calibration.batches(min(size, self.calibration.n))

    @property
    def calibrated(self) -> bool:
        """Whether there are inputs to calibrate on, of the model or of its layers."""
        return self.calibration is not None or self.recorded is not None

    def pinned(self, method: Method, refit: Refit) -> list[np.ndarray] | None:
        """States that stay whatever they score, (sets, N) bool a layer; None where there are none.

        Those whose energy is infinite. Measured on calibration inputs, a state on the unit circle (LinOSS-IMEX has no
        others) has an energy like any other.
        """
        if not self.pins_unstable:
            return None
        measured = method.eliminates and self.moment_source(refit) == "calibrated"
        masks = unstable(self.systems, _ON_THE_CIRCLE if measured else 0.0)
        return masks if any(mask.any() for mask in masks) else None

    @property
    def pins_unstable(self) -> bool:
        """Whether states that no norm can rank stay: a rule that the published code (`compat`) does not know."""
        return self.plan.compat is None or self.plan.allow_unstable

    @property
    def unstable(self) -> list[tuple[str, np.ndarray, float]]:
        """(layer, (sets, N) bool, largest |λ|) of every layer with states that no norm can rank.

        On calibration inputs without those on the unit circle, unless a method of the plan ranks by norms even so.
        """
        methods = self.plan.methods or ((self.plan.method,) if self.plan.method is not None else ())
        measured = self.calibrated and bool(methods) and all(method.eliminates for method in methods)
        masks = unstable(self.systems, _ON_THE_CIRCLE if measured else 0.0)
        named = zip(self.names, masks, self.systems)
        return [(name, mask, engine_of(system).largest_pole(system)) for name, mask, system in named if mask.any()]

    def eliminations(self, refit: Refit) -> list[Elimination]:
        """The order in which the states of every layer go, and what is lost with each; processes divide the layers."""
        source = self.moment_source(refit)
        if source not in self._eliminated:
            moments = self.moments(source)

            def eliminated(layer: int) -> Elimination:
                system = self.systems[layer]
                return engine_of(system).eliminate(system, moments[layer])

            each = partial(layers.each, bytes_each=self.working_bytes)
            self._eliminated[source] = processes.divided(eliminated, range(len(self.systems)), each)
        return self._eliminated[source]

    @property
    def working_bytes(self) -> int:
        """About what an elimination or an exchange of states of one layer takes, which is matrices of its features."""
        from lastcli.reduction.layer_moments import size_of

        moments = (engine_of(system).empty_moments(system) for system in self.systems)
        return _MATRICES * max(map(size_of, moments), default=0)

    def _energy(self, method: Method, index: int) -> np.ndarray:
        """Energies of one layer; the stored parameters, which only the family knows, are read where they count."""
        checkpoint = self.checkpoint
        parameters = None
        if method.criterion == "magnitude":
            parameters = checkpoint.family.magnitudes(checkpoint.layers[index], checkpoint.config, checkpoint.read)
        system = self.systems[index]
        return engine_of(system).energies(
            system,
            method.rule,
            compat=self.plan.compat is not None,
            seed=(self.plan.seed or 0) + index,
            parameters=parameters,
            moments=None if self.calibration is None else lambda: self.moments("calibrated")[index],
        )

    def moment_source(self, refit: Refit) -> str:
        """What second moments a choice of states goes by: "calibrated", or "h2" where nothing else is at hand."""
        return "h2" if refit.moments == "h2" or not self.calibrated else "calibrated"


def allocation_of(method: Method) -> str:
    """The rule for energies that are weighted already is to compare them as they are."""
    return "global" if method.needs_model else method.allocation
