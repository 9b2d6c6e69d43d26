"""`Compressor`: one checkpoint's energies, moments and eliminations, computed once; reductions for any ratio.

A reduction is a method (which states stay: criterion × allocation, elimination, or balanced truncation) followed by a
refit (what the kept ones say). Everything expensive that does not depend on the ratio is kept between calls, so a
sweep costs little more than one pruning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.engine import allocation
from lastcli.engine.engines import engine_of, unstable
from lastcli.engine.protocol import Reduction, System
from lastcli.engine.system import diagonal
from lastcli.errors import LastError, UsageError
from lastcli.model.checkpoint import Checkpoint
from lastcli.parallel import processes
from lastcli.plan import METHODS, REFITS, Method, Plan, Refit
from lastcli.reduction import refits
from lastcli.reduction.feasible import check, require_exact, require_norms
from lastcli.reduction.refits import done_bar

if TYPE_CHECKING:
    from lastcli.engine.balanced import Balanced
    from lastcli.engine.elimination import Elimination
    from lastcli.evaluation.data import Batches, Split
    from lastcli.reduction.lessons import Lessons
    from lastcli.reduction.recorded import LayerInputs
    from lastcli.reduction.stages import Stages
    from lastcli.reduction.unfinished import Unfinished

__all__ = ["Compressor"]

_BATCH = 64
# |λ| - 1 of a state that turns without growing, in the rounding of a float32 checkpoint.
_ON_THE_CIRCLE = 1e-6


class Compressor:
    """Reductions of one checkpoint.

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
        unfinished: where the matching of outputs is kept, and taken up again; nowhere, unless the owner says where.
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
        self.unfinished: Unfinished | None = None
        self._energies: dict[Any, list[np.ndarray]] = {}
        self._eliminated: dict[str, list[Elimination]] = {}
        self._moments: dict[str, list[Any]] = {}
        self._balanced_layers: dict[str, list[Balanced]] = {}
        self._stages: dict[Any, Stages] = {}
        self._samples: dict[int, Compressor] = {}
        self._first: Compressor = self  # of the stages of one pruning

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
            return self._weighted(method, [found.share for found in self._eliminations(refit)])
        if method.criterion not in self._energies:
            if method.criterion in ("hinf", "h2"):
                require_norms(self.checkpoint, self.plan)
                if not all(system.time_invariant for system in self.systems):
                    self.decisions.append(self.frozen_note)
            self._energies[method.criterion] = [self._energy(method, index) for index in range(len(self.systems))]
        return self._weighted(method, self._energies[method.criterion])

    def _ranks(self, method: Method, refit: Refit) -> list[np.ndarray]:
        """What the layers compete by: the energies, for obs with what the read-outs cost beside their errors."""
        if method.eliminates:
            return self._weighted(method, [found.rank for found in self._eliminations(refit)])
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
        energies, moments = self._ranks(METHODS["obs"], REFITS["calibrated"]), self.moments("calibrated")
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
        return allocation.scores(self.energies(method), _allocation(method))

    def kept(
        self,
        method: Method,
        refit: Refit = REFITS["none"],
        *,
        ratio: Decimal | None = None,
        states: int | None = None,
    ) -> list[np.ndarray]:
        """Which states stay, (sets, K) indices a layer, for a ratio or a number of states to keep.

        Raises:
            UsageError: more states asked for than there are.
        """
        self._check_count(states)
        kept = allocation.select(
            self._ranks(method, refit),
            _allocation(method),
            ratio=ratio,
            states=states,
            min_states=self.plan.min_states,
            layout=self.layout,
            multiple=self.plan.states_multiple,
            ties="reference" if self.plan.compat else "exact",
            pinned=self.pinned(method, refit),
        )
        if method.allocation == "exchange" and self.layout in ("ragged", "padded") and self.plan.states_multiple == 1:
            kept = self._divided_anew(kept, method, refit)
        return self._exchanged(kept, method, refit) if method.eliminates else kept

    def _divided_anew(self, kept: Sequence[np.ndarray], method: Method, refit: Refit) -> list[np.ndarray]:
        """As many states as `kept`, divided among the layers by what the whole model says; each keeps its best."""
        from lastcli.reduction.end_to_end import OutputError
        from lastcli.reduction.exchange import exchange_between_layers

        if self.calibration is None:
            raise UsageError(f"{method.name} needs inputs to calibrate on; give an .npz file with --calibration.")
        ranks, moments, pinned = self._ranks(method, refit), self.moments("calibrated"), self.pinned(method, refit)
        error = OutputError(self.checkpoint, self.systems, ranks, moments, self.calibration, pinned)
        counts = tuple(keep.shape[1] for keep in kept)
        layers = error.layers(self.plan.min_states)
        with contextlib.nullcontext() if self.progress is None else self.progress("Exchanging states", None) as bar:
            advance = None if bar is None else bar.advance
            found = exchange_between_layers(counts, layers, error, progress=advance)
        if found.counts != counts:
            shown = " ".join(map(str, found.counts))
            self.decisions.append(
                f"States exchanged between layers: {' '.join(map(str, counts))} by the ranking, {shown} now; "
                f"{found.tried} divisions tried."
            )
        return error.kept(found.counts)

    def _exchanged(self, kept: Sequence[np.ndarray], method: Method, refit: Refit) -> list[np.ndarray]:
        """Elimination never takes a state back; exchanging kept and dropped ones makes that good."""
        moments = self.moments(self._moment_source(refit))
        pinned = self.pinned(method, refit)
        held = [None] * len(kept) if pinned is None else list(pinned)
        layers = zip(self.systems, kept, moments, held)
        return [engine_of(system).exchange(system, keep, moment, pin) for system, keep, moment, pin in layers]

    def check(self, method: Method, refit: Refit) -> None:
        """Refuse what cannot run, before anything is computed; see `lastcli.reduction.feasible`."""
        check(self.checkpoint, method, refit, self.plan, calibrated=self.calibrated, recorded=self.recorded)

    @property
    def calibrated(self) -> bool:
        """Whether there are inputs to calibrate on, of the model or of its layers."""
        return self.calibration is not None or self.recorded is not None

    def reduce(
        self, method: Method, refit: Refit, *, ratio: Decimal | None = None, states: int | None = None
    ) -> list[Reduction]:
        """One `Reduction` a layer.

        Raises:
            UsageError: the refit needs calibration inputs and there are none, or does not go with the method.
            UnsupportedModelError: the model cannot hold the result.
        """
        self.check(method, refit)
        require_exact(self.checkpoint, self.plan)
        if self.plan.steps > 1:
            return self._staged(method, refit).reduce(ratio=ratio, states=states)
        return self.reduce_at_once(method, refit, ratio=ratio, states=states)

    def prepare(self, pairs: Sequence[tuple[Method, Refit]]) -> None:
        """Compute together, with all processes, what reductions of these pairs share: the rest each does for itself.

        An error is left to the reduction that meets it.
        """
        if self.plan.steps > 1 or processes.count() == 1:
            return
        for method, refit in pairs:
            with contextlib.suppress(LastError):
                self.check(method, refit)
                if method.moves_poles:
                    self._balance(method)
                else:
                    self._ranks(method, refit)
                if refit.for_kept_states and not refit.needs_model:
                    self.moments(self._moment_source(refit))

    def reduce_at_once(
        self, method: Method, refit: Refit, *, ratio: Decimal | None = None, states: int | None = None
    ) -> list[Reduction]:
        """`reduce` in one stage, nothing checked."""
        sampled = self._on_sample(refit.start_sequences)
        if method.moves_poles:
            start = self._balanced(method, ratio, states)
        else:
            kept = sampled.kept(method, refit, ratio=ratio, states=states)
            start = [engine_of(system).truncate(system, keep) for system, keep in zip(self.systems, kept)]
        task = refits.Task(
            checkpoint=self.checkpoint,
            systems=self.systems,
            start=start,
            moved=method.moves_poles,
            reselect=method.eliminates,
            pinned=self.pinned(method, refit),
            moments=sampled.moments,
            batches=lambda: sampled.batches,
            lessons=lambda: self.lessons,
            progress=self.progress,
            unfinished=self._first.unfinished,
            recorded=self.recorded,
        )
        reductions = refits.apply(refit, task)
        if self.plan.match_output and not refit.matches_output:
            reductions = refits.match_output(self.lessons, reductions, self.progress, self._first.unfinished)
        return reductions

    def _on_sample(self, sequences: int | None) -> Compressor:
        """This compressor, its calibration inputs thinned out evenly where there are more than so many."""
        if sequences is None or self.calibration is None or self.calibration.n <= sequences:
            return self
        if sequences not in self._samples:
            split = self.calibration.thinned(sequences)
            sample = Compressor(self.checkpoint, self.plan, split, self.progress, systems=self.systems)
            sample.decisions = self.decisions
            self._samples[sequences] = sample
        return self._samples[sequences]

    def _staged(self, method: Method, refit: Refit) -> Stages:
        """The stages of one method and refit; every stage reduces the layers that the one before it made."""
        if (method, refit) not in self._stages:
            from lastcli.reduction.stages import Stages

            def reduce(systems: Sequence[System], states: int) -> list[Reduction]:
                layers = None if systems is first else systems
                stage = Compressor(self.checkpoint, self.plan, self.calibration, self.progress, systems=layers)
                stage._first = self
                return stage.reduce_at_once(method, refit, states=states)

            first = tuple(self.systems)
            self._stages[method, refit] = Stages(first, self.plan.steps, self.plan.ratios or (), reduce)
        return self._stages[method, refit]

    def moments(self, source: str) -> list[Any]:
        """Second moments of every layer: "h2" under white noise, "calibrated" on the calibration inputs."""
        if source not in self._moments:
            if source == "h2":
                require_norms(self.checkpoint, self.plan)
                from lastcli.engine.white_noise import white_noise_moments

                self._moments[source] = [white_noise_moments(diagonal(s), allow_unstable=True) for s in self.systems]
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

    def data_errors(self, reductions: Sequence[Reduction]) -> list[float | None]:
        """Relative error of each reduced layer's output on the calibration inputs as they reach the original model.

        None where nothing says: without inputs, or (unless the layers' own are recorded) where the poles moved.
        """
        from lastcli.engine.reductions import residual

        layers = list(enumerate(zip(self.systems, reductions)))
        if self.recorded is not None:
            return [self.recorded.error(i, diagonal(system), reduction) for i, (system, reduction) in layers]
        moments = self._moments.get("calibrated")
        return [
            None
            if moments is None or reduction.changed == "all" or not system.time_invariant
            else residual(diagonal(system), reduction, moments[i]) ** 0.5
            for i, (system, reduction) in layers
        ]

    @cached_property
    def batches(self) -> Batches:
        """The calibration inputs in batches."""
        if self.calibration is None:
            raise UsageError("This needs inputs to calibrate on; give an .npz file with --calibration.")
        size = self.plan.batch_size or min(_BATCH, -(-self.calibration.n // processes.count()))
        return self.calibration.batches(min(size, self.calibration.n))

    @cached_property
    def lessons(self) -> Lessons:
        """What outputs are matched on: the calibration inputs, with the original model's answers; all stages share it.

        Raises:
            UsageError: there are none.
            InputError: too few sequences to hold any back.
        """
        if self._first is not self:
            return self._first.lessons
        from lastcli.reduction.lessons import Lessons

        forward, params = self.checkpoint.require_forward(), self.checkpoint.params
        return Lessons(forward, params, self.checkpoint.systems, self.batches, seed=self.plan.seed or 0)

    def pinned(self, method: Method, refit: Refit) -> list[np.ndarray] | None:
        """States that stay whatever they score, (sets, N) bool a layer; None where there are none.

        Those whose energy is infinite. Measured on calibration inputs, a state on the unit circle (LinOSS-IMEX has no
        others) has an energy like any other.
        """
        if not self.pins_unstable:
            return None
        measured = method.eliminates and self._moment_source(refit) == "calibrated"
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
        layers = zip(self.names, masks, self.systems)
        return [(name, mask, engine_of(system).largest_pole(system)) for name, mask, system in layers if mask.any()]

    def _eliminations(self, refit: Refit) -> list[Elimination]:
        source = self._moment_source(refit)
        if source not in self._eliminated:
            layers = list(zip(self.systems, self.moments(source)))
            self._eliminated[source] = processes.divided(
                lambda layer: engine_of(layer[0]).eliminate(layer[0], layer[1]), layers
            )
        return self._eliminated[source]

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

    def _moment_source(self, refit: Refit) -> str:
        return "h2" if refit.moments == "h2" or not self.calibrated else "calibrated"

    def _balanced(self, method: Method, ratio: Decimal | None, states: int | None) -> list[Reduction]:
        """Balanced reductions of all layers."""
        from lastcli.engine.balanced import reduce_balanced

        self._check_count(states)
        return reduce_balanced(
            self._balance(method),
            ratio=ratio,
            states=states,
            min_states=self.plan.min_states,
            layout=self.layout,
            multiple=self.plan.states_multiple,
        )

    def _balance(self, method: Method) -> list[Balanced]:
        from lastcli.engine.balanced import balance

        if method.name not in self._balanced_layers:
            mode = "perturbation" if method.settles else "truncation"
            layers = list(zip(map(diagonal, self.systems), self.names))
            self._balanced_layers[method.name] = processes.divided(
                lambda layer: balance(layer[0], layer[1], mode), layers
            )
        return self._balanced_layers[method.name]

    def _check_count(self, states: int | None) -> None:
        if states is not None and states > self.states:
            raise UsageError(f"--states {states} is more than the {self.states} states the model has.")


def _allocation(method: Method) -> str:
    """The rule for energies that are weighted already is to compare them as they are."""
    return "global" if method.needs_model else method.allocation
