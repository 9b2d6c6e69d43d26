"""`Compressor`: reductions of one checkpoint, for any ratio.

A reduction is a method (which states stay: criterion × allocation, elimination, or balanced truncation) followed by a
refit (what the kept ones say). Everything expensive that does not depend on the ratio is kept between calls, so a
sweep costs little more than one pruning.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.engine import allocation
from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import Reduction, System
from lastcli.engine.system import diagonal
from lastcli.errors import LastError, UsageError
from lastcli.parallel import layers, processes
from lastcli.plan import REFITS, Method, Refit
from lastcli.reduction import refits
from lastcli.reduction.feasible import check, require_exact
from lastcli.reduction.ranking import Ranking, allocation_of

if TYPE_CHECKING:
    from lastcli.engine.balanced import Balanced
    from lastcli.reduction.lessons import Lessons
    from lastcli.reduction.stages import Stages
    from lastcli.reduction.unfinished import Unfinished

__all__ = ["Compressor"]


class Compressor(Ranking):
    """Reductions of one checkpoint: what its states are worth, and what becomes of its layers.

    Arguments and attributes as for `Ranking`.

    Attributes:
        unfinished: where the matching of outputs is kept, and taken up again; nowhere, unless the owner says where.
    """

    unfinished: Unfinished | None = None
    _before: Compressor | None = None  # of a stage, the compressor of the pruning that it is part of

    @cached_property
    def _balanced_layers(self) -> dict[str, list[Balanced]]:
        return {}

    @cached_property
    def _stages(self) -> dict[Any, Stages]:
        return {}

    @cached_property
    def _samples(self) -> dict[int, Compressor]:
        return {}

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
            self.ranks(method, refit),
            allocation_of(method),
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
        ranks, moments, pinned = self.ranks(method, refit), self.moments("calibrated"), self.pinned(method, refit)
        error = OutputError(self.checkpoint, self.systems, ranks, moments, self.calibration, pinned)
        counts = tuple(keep.shape[1] for keep in kept)
        errors = error.layers(self.plan.min_states)
        with contextlib.nullcontext() if self.progress is None else self.progress("Exchanging states", None) as bar:
            advance = None if bar is None else bar.advance
            found = exchange_between_layers(counts, errors, error, progress=advance)
        if found.counts != counts:
            shown = " ".join(map(str, found.counts))
            self.decide(
                f"States exchanged between layers: {' '.join(map(str, counts))} by the ranking, {shown} now; "
                f"{found.tried} divisions tried."
            )
        return error.kept(found.counts)

    def _exchanged(self, kept: Sequence[np.ndarray], method: Method, refit: Refit) -> list[np.ndarray]:
        """Elimination never takes a state back; exchanging kept and dropped ones makes that good."""
        moments = self.moments(self.moment_source(refit))
        pinned = self.pinned(method, refit)
        held = [None] * len(kept) if pinned is None else list(pinned)

        def exchanged(layer: int) -> np.ndarray:
            system = self.systems[layer]
            return engine_of(system).exchange(system, kept[layer], moments[layer], held[layer])

        return layers.each(exchanged, range(len(kept)), self.working_bytes)

    def check(self, method: Method, refit: Refit) -> None:
        """Refuse what cannot run, before anything is computed; see `lastcli.reduction.feasible`."""
        check(self.checkpoint, method, refit, self.plan, calibrated=self.calibrated, recorded=self.recorded)

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
                    self.ranks(method, refit)
                if refit.for_kept_states and not refit.needs_model:
                    self.moments(self.moment_source(refit))

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
            unfinished=self.unfinished,
            recorded=self.recorded,
        )
        reductions = refits.apply(refit, task)
        if self.plan.match_output and not refit.matches_output:
            reductions = refits.match_output(self.lessons, reductions, self.progress, self.unfinished)
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
                own = None if systems is first else systems
                stage = Compressor(self.checkpoint, self.plan, self.calibration, self.progress, systems=own)
                stage._before, stage.unfinished, stage.decisions = self, self.unfinished, self.decisions
                return stage.reduce_at_once(method, refit, states=states)

            first = tuple(self.systems)
            self._stages[method, refit] = Stages(first, self.plan.steps, self.plan.ratios or (), reduce)
        return self._stages[method, refit]

    def data_errors(self, reductions: Sequence[Reduction]) -> list[float | None]:
        """Relative error of each reduced layer's output on the calibration inputs as they reach the original model.

        None where nothing says: without inputs, or (unless the layers' own are recorded) where the poles moved.
        """
        from lastcli.engine.reductions import residual

        numbered = list(enumerate(zip(self.systems, reductions)))
        if self.recorded is not None:
            return [self.recorded.error(i, diagonal(system), reduction) for i, (system, reduction) in numbered]
        moments = self._moments.get("calibrated")
        return [
            None
            if moments is None or reduction.changed == "all" or not system.time_invariant
            else residual(diagonal(system), reduction, moments[i]) ** 0.5
            for i, (system, reduction) in numbered
        ]

    @cached_property
    def lessons(self) -> Lessons:
        """What outputs are matched on: the calibration inputs, with the original model's answers; all stages share it.

        Raises:
            UsageError: there are none.
            InputError: too few sequences to hold any back.
        """
        if self._before is not None:
            return self._before.lessons
        from lastcli.reduction.lessons import Lessons

        checkpoint = self.checkpoint
        return Lessons(
            checkpoint.require_forward(),
            checkpoint.params,
            checkpoint.systems,
            self.batches,
            seed=self.plan.seed or 0,
            description=f"{checkpoint.family.name} {sorted(checkpoint.config.items())}",
        )

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
            named = list(zip(map(diagonal, self.systems), self.names))
            self._balanced_layers[method.name] = processes.divided(
                lambda layer: balance(layer[0], layer[1], mode), named, layers.each
            )
        return self._balanced_layers[method.name]

    def _check_count(self, states: int | None) -> None:
        if states is not None and states > self.states:
            raise UsageError(f"--states {states} is more than the {self.states} states the model has.")
