"""`Compressor`: one checkpoint's energies, moments and eliminations, computed once; reductions for any ratio.

A reduction is a method (which states stay: criterion × allocation, elimination, or balanced truncation) followed by a
refit (what the kept ones say). Everything expensive that does not depend on the ratio is kept between calls, so a
sweep costs little more than one pruning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.engine import allocation, criteria
from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.errors import UsageError
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import Plan
from lastcli.reduction import refits as refitting
from lastcli.reduction.refits import done_bar

if TYPE_CHECKING:
    from lastcli.engine.balanced import Balanced
    from lastcli.engine.moments import Moments
    from lastcli.evaluation.data import Batches, Split

__all__ = ["Compressor", "default_refit", "keeps_poles", "needs_calibration"]

_CALIBRATED = ("calibrated", "sequential", "poles")
_ELIMINATION = {"obs": "global", "obs-sensitivity": "sensitivity"}
_BALANCED = {"balanced": "truncation", "balanced-dc": "perturbation"}
_BATCH = 64


def default_refit(method: str, calibrated: bool) -> str:
    """The refit of a run that names none: nothing, but for obs h2, or calibrated where there are inputs."""
    if method not in _ELIMINATION:
        return "none"
    return "calibrated" if calibrated else "h2"


def needs_calibration(method: str, refit: str, available: bool) -> bool:
    """Whether a run reads calibration inputs; obs without a refit of its own takes them where it can."""
    return refit in _CALIBRATED or method == "obs-sensitivity" or (method == "obs" and refit == "none" and available)


def keeps_poles(method: str, refit: str) -> bool:
    """Whether the refit is for kept states while the method moves the poles: the two do not go together."""
    return method in _BALANCED and refit in ("calibrated", "sequential")


class Compressor:
    """Reductions of one checkpoint.

    Args:
        checkpoint: the open checkpoint.
        plan: method-independent options: compat, seed, min_states, layout, allow_unstable, batch_size.
        calibration: unlabelled inputs, or None.
        progress: called as `progress(label, total)` for long steps; gives a context manager with `.advance(n)`.

    Attributes:
        names: of the layers.
        decisions: sentences about what was decided for the user.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        plan: Plan,
        calibration: Split | None = None,
        progress: Callable[..., Any] | None = None,
    ):
        self.checkpoint = checkpoint
        self.plan = plan
        self.calibration = calibration
        self.progress = progress
        self.names = [layer.name for layer in checkpoint.layers]
        self.decisions: list[str] = []
        self._energies: dict[str, list[np.ndarray]] = {}
        self._moments: dict[str, list[Moments]] = {}
        self._balanced_layers: dict[str, list[Balanced]] = {}

    @property
    def systems(self) -> tuple[DiagonalSystem, ...]:
        """The original layers, float64."""
        return self.checkpoint.systems

    def _require_norms(self) -> None:
        """Refuse states without a finite norm where a norm is what decides.

        Raises:
            UnsupportedModelError: a pole at or outside the unit circle, and unstable states are not allowed.
        """
        # the published code takes its formula at its word; measured energies (calibration) are finite anyway
        allow = self.plan.allow_unstable or self.plan.compat is not None
        criteria.check_stable(self.systems, self.names, allow=allow)

    @property
    def states(self) -> int:
        """Stored states of the whole model."""
        return sum(system.stored_states for system in self.systems)

    def rule(self, method: str) -> tuple[str, str]:
        """(criterion, allocation) of a method."""
        if method in _ELIMINATION:
            return "obs", _ELIMINATION[method]
        return allocation.PRESETS[method]

    def energies(self, method: str, refit: str = "none") -> list[np.ndarray]:
        """Energy of every state under the method's criterion, (sets, N) a layer.

        For obs it is the residual, relative to the layer's output energy, that the layer has reached when the state
        goes; on calibration inputs or white noise as the refit is.
        """
        criterion, rule = self.rule(method)
        source = self._moment_source(refit) if criterion == "obs" else ""
        key = f"{criterion}:{source}"
        if key not in self._energies:
            self._energies[key] = self._compute(criterion, source)
        if rule == "sensitivity":
            return [energy * weight for energy, weight in zip(self._energies[key], self.sensitivities)]
        return self._energies[key]

    @cached_property
    def sensitivities(self) -> np.ndarray:
        """Weight of each layer's residual: how much the model's outputs move with it, on the calibration inputs.

        Raises:
            UsageError: there are none.
        """
        from lastcli.reduction.sensitivity import layer_sensitivities

        if self.calibration is None:
            raise UsageError("obs-sensitivity needs inputs to calibrate on; give an .npz file with --calibration.")
        energies, moments = self.energies("obs", "calibrated"), self.moments("calibrated")
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
        self.decisions.append(f"Layers weighted by how much the outputs move with them: {shown}.")
        return weights

    def scores(self, method: str) -> list[np.ndarray]:
        """Score of every state, comparable over all layers, (sets, N) a layer."""
        return allocation.scores(self.energies(method), self._allocation(method))

    def _allocation(self, method: str) -> str:
        """The rule for energies that are weighted already is to compare them as they are."""
        rule = self.rule(method)[1]
        return "global" if rule == "sensitivity" else rule

    def kept(
        self, method: str, refit: str = "none", *, ratio: Decimal | None = None, states: int | None = None
    ) -> list[np.ndarray]:
        """Which states stay, (sets, K) indices a layer, for a ratio or a number of states to keep.

        Raises:
            UsageError: more states asked for than there are.
        """
        self._check_count(states)
        pinned = self._pinned()
        kept = allocation.select(
            self.energies(method, refit),
            self._allocation(method),
            ratio=ratio,
            count=states,
            min_states=self.plan.min_states,
            layout=self.plan.layout,
            ties="reference" if self.plan.compat else "exact",
            pinned=pinned,
        )
        return self._exchanged(kept, refit, pinned) if method in _ELIMINATION else kept

    def _exchanged(
        self, kept: Sequence[np.ndarray], refit: str, pinned: Sequence[np.ndarray] | None
    ) -> list[np.ndarray]:
        """Elimination never takes a state back; exchanging kept and dropped ones makes that good."""
        from lastcli.engine.exchange import exchange

        moments = self.moments(self._moment_source(refit))
        held = [None] * len(kept) if pinned is None else list(pinned)
        layers = zip(self.systems, kept, moments, held)
        return [exchange(system, keep, moment, pinned=pin) for system, keep, moment, pin in layers]

    def reduce(
        self, method: str, refit: str, *, ratio: Decimal | None = None, states: int | None = None
    ) -> list[Reduction]:
        """One `Reduction` a layer.

        Raises:
            UsageError: the refit needs calibration inputs and there are none, or does not go with the method.
        """
        if refit in _CALIBRATED and self.calibration is None:
            raise UsageError(f"--refit {refit} needs inputs to calibrate on; give an .npz file with --calibration.")
        if method in _BALANCED:
            if keeps_poles(method, refit):
                raise UsageError(f"--refit {refit} keeps the original poles, {method} moves them; use h2 or poles.")
            reductions = self._balanced(method, refit, ratio, states)
        else:
            reductions = self._read_out(self.kept(method, refit, ratio=ratio, states=states), refit)
        if refit == "poles":
            reselect = method in _ELIMINATION
            reductions = refitting.poles(self.checkpoint, reductions, self.batches, self.progress, reselect=reselect)
        if self.plan.match_output:
            seed = self.plan.seed
            reductions = refitting.match_output(self.checkpoint, reductions, self.batches, self.progress, seed=seed)
        return reductions

    def moments(self, source: str) -> list[Moments]:
        """Second moments of every layer: "h2" under white noise, "calibrated" on the calibration inputs."""
        if source not in self._moments:
            if source == "h2":
                self._require_norms()
                from lastcli.engine.moments import white_noise_moments

                allow = self.plan.allow_unstable or self.plan.compat is not None
                self._moments[source] = [white_noise_moments(s, allow_unstable=allow) for s in self.systems]
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
        return self.calibration.batches(min(self.plan.batch_size or _BATCH, self.calibration.n))

    def _compute(self, criterion: str, source: str) -> list[np.ndarray]:
        if criterion == "obs":
            from lastcli.engine.elimination import eliminate

            found = [eliminate(system, moments) for system, moments in zip(self.systems, self.moments(source))]
            return [elimination.share for elimination in found]
        if criterion in ("hinf", "h2"):
            self._require_norms()
        function = criteria.CRITERIA[criterion]
        energies = []
        for index, (layer, system) in enumerate(zip(self.checkpoint.layers, self.systems)):
            magnitudes = None
            if criterion == "magnitude":
                magnitudes = self.checkpoint.family.magnitudes(layer, self.checkpoint.config, self.checkpoint.read)
            energies.append(
                function(
                    system, compat=self.plan.compat is not None, seed=self.plan.seed + index, parameters=magnitudes
                )
            )
        return energies

    def _moment_source(self, refit: str) -> str:
        if refit == "h2" or self.calibration is None:
            return "h2"
        return "calibrated"

    def _read_out(self, kept: Sequence[np.ndarray], refit: str) -> list[Reduction]:
        from lastcli.engine import refit as readout

        if refit == "none":
            return [readout.truncate(system, keep) for system, keep in zip(self.systems, kept)]
        if refit in ("sequential", "poles"):
            return refitting.sequential(self.checkpoint, kept, self.batches, self.progress)
        moments = self.moments(refit)
        return [readout.refit(system, keep, moment) for system, keep, moment in zip(self.systems, kept, moments)]

    def _balanced(self, method: str, refit: str, ratio: Decimal | None, states: int | None) -> list[Reduction]:
        """Balanced reductions of all layers; with refit h2 the H2-optimal read-out for the new poles."""
        from lastcli.engine import balanced
        from lastcli.engine.joint import refit_moved

        self._require_norms()
        self._check_count(states)
        if method not in self._balanced_layers:
            self._balanced_layers[method] = [
                balanced.balance(system, name, _BALANCED[method]) for system, name in zip(self.systems, self.names)
            ]
        reductions = balanced.reduce_balanced(
            self._balanced_layers[method],
            ratio=ratio,
            count=states,
            min_states=self.plan.min_states,
            layout=self.plan.layout,
        )
        if refit != "h2":
            return reductions
        return [refit_moved(system, reduction) for system, reduction in zip(self.systems, reductions)]

    def _check_count(self, states: int | None) -> None:
        if states is not None and states > self.states:
            raise UsageError(f"--states {states} is more than the {self.states} states the model has.")

    def _pinned(self) -> list[np.ndarray] | None:
        if not self.plan.allow_unstable:
            return None
        return criteria.unstable(self.systems)
