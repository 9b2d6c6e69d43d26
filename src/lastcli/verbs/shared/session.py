"""`Session`: the files of one run, opened when first needed and closed together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lastcli.containers import CONTAINERS, MODEL_KEY
from lastcli.errors import UsageError
from lastcli.model.checkpoint import Checkpoint
from lastcli.model.opening import model_predicate, open_checkpoint
from lastcli.parallel import devices, processes
from lastcli.plan import BUNDLED, METHODS, Method, Plan, Refit
from lastcli.verbs.shared.examples import Examples
from lastcli.verbs.shared.finite import require_finite_outputs
from lastcli.verbs.shared.interrupted import matchings_beside
from lastcli.verbs.shared.skeleton import load_skeleton
from lastcli.verbs.shared.sources import (
    Source,
    choose_checkpoint,
    named_checkpoint,
)

if TYPE_CHECKING:
    from lastcli.containers.base import TensorInfo
    from lastcli.containers.container import IsModel
    from lastcli.engine.protocol import Reduction
    from lastcli.evaluation.external import ExternalForward
    from lastcli.reduction.compressor import Compressor

__all__ = ["Session"]


def _nobody(sentence: str) -> None:
    """Of several processes only the first one speaks."""


class Session:
    """One run: its plan, its checkpoint, and `examples`, its data.

    Args:
        plan: the options.
        flags: model options given explicitly (`--set`), the strongest source.
        model_config: a description file of the model.
        checkpoint: an open checkpoint to use instead of the plan's path; it is not closed here.
        note: called with sentences for the user (standard error on the command line).
        progress: called as `progress(label, total)`; gives a context manager with `.advance(n)`.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        flags: Mapping[str, Any] | None = None,
        model_config: Path | None = None,
        checkpoint: Checkpoint | None = None,
        note: Callable[[str], None] = _nobody,
        progress: Callable[..., Any] | None = None,
    ):
        self.plan = plan
        self.flags = dict(flags or {})
        self.model_config = model_config
        self.note = note
        self.progress = progress
        self._given = checkpoint
        self._stack = ExitStack()
        self.examples = Examples(self)

    @cached_property
    def source(self) -> Source:
        """Which checkpoint was chosen, and why."""
        if self._given is not None:
            return Source(self._given.path, "as given")
        source = choose_checkpoint(self.plan)
        if source.how != "as named":
            self.note(f"Checkpoint: {source.how}.")
        return source

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The open checkpoint."""
        if self._given is not None:
            return self._given
        checkpoint = self._open(self.source, self.plan.name)
        if self.plan.like is not None and not CONTAINERS[checkpoint.reader.kind].open_like:
            raise UsageError(f"--like names the leaves of .eqx files; {checkpoint.label} has names of its own.")
        for sentence in checkpoint.notes:
            self.note(sentence)
        return checkpoint

    @cached_property
    def reducing(self) -> Plan:
        """The plan with what the model's family decides where the user did not: method and layout."""
        plan, family = self.plan, self.checkpoint.family
        method = plan.method or METHODS[family.default_methods[int(self.examples.has_calibration)]]
        return plan.replace(method=method, layout=plan.layout or family.layouts[0])

    @property
    def layout(self) -> str:
        """How the layers' state counts may differ."""
        return self.reducing.layout or "ragged"

    def open(self, model: str | Path | Checkpoint, *, own_description: bool = False) -> Checkpoint:
        """Whatever a run names: a path or `bundled`, described by its flags and recipe; closed with the session.

        Args:
            model: an open checkpoint is given back as it is, and not closed here.
            own_description: a file that says of itself what it is, as `last` writes it, is taken at its word; flags
                and recipe describe the file it was made from.
        """
        if isinstance(model, Checkpoint):
            return model
        return self._open(named_checkpoint(model), self.plan.name, own_description=own_description)

    def open_pair(
        self, original: str | Path | Checkpoint, pruned: str | Path | Checkpoint, *, keep_others: bool = False
    ) -> tuple[Checkpoint, Checkpoint]:
        """A checkpoint and what was made from it; which of several models that was, the second one says itself.

        Args:
            keep_others: open their other models with them, to compare them too.
        """
        second = self._open_as(pruned, self.plan.name, own_description=True, keep_others=keep_others)
        if isinstance(original, Checkpoint):
            return original, second
        if self.plan.name is None:
            name = second.reader.metadata.get(MODEL_KEY)
            first = self._open_as(original, name, keep_others=keep_others)
        else:
            first = self._open(named_checkpoint(original), self.plan.name, keep_others=keep_others)
        ours, theirs = (checkpoint.settings.get("task") for checkpoint in (first, second))
        if ours is not None and theirs is not None and ours.source == "assumed" and ours.value != theirs.value:
            first.take_task(theirs.value)  # the labels that it was measured on settled it
        return first, second

    def _open_as(
        self, model: str | Path | Checkpoint, name: str | None, *, own_description: bool = False, keep_others: bool
    ) -> Checkpoint:
        """A model by a name that its file may lack, because it is alone there."""
        if isinstance(model, Checkpoint):
            return model
        source = named_checkpoint(model)
        try:
            return self._open(source, name, own_description=own_description, keep_others=keep_others)
        except UsageError:
            if name is None:
                raise
        return self._open(source, None, own_description=own_description, keep_others=keep_others)

    def _open(
        self, source: Source, name: str | None, *, own_description: bool = False, keep_others: bool = False
    ) -> Checkpoint:
        checkpoint = open_checkpoint(
            source.path,
            flags=self.flags,
            model_config=self.model_config,
            recipe=self.plan.model,
            name=name,
            like=self.skeleton,
            keep_others=keep_others or self.plan.keep_others,
            own_description=own_description,
        )
        if source.bundled:
            checkpoint.label = BUNDLED
        return self._stack.enter_context(checkpoint)

    @cached_property
    def is_model(self) -> IsModel:
        """What tells a model from other tensors where a file holds several dictionaries, as in `checkpoint`."""
        return model_predicate(
            self.source.path, flags=self.flags, model_config=self.model_config, recipe=self.plan.model
        )

    @cached_property
    def skeleton(self) -> tuple[TensorInfo, ...] | None:
        """The leaves of the user's module (`--like`), or None."""
        if self.plan.like is None:
            return None
        return load_skeleton(self.plan.like)

    @cached_property
    def external(self) -> ExternalForward | None:
        """The user's own forward pass (`--forward`), or None."""
        if self.plan.forward is None:
            return None
        from lastcli.evaluation.external import load_external

        return load_external(self.plan.forward)

    @cached_property
    def measured_by(self) -> tuple[ExternalForward, str | None] | None:
        """The user's own forward pass once it is known what its outputs are, and what is said about that."""
        if self.external is None:
            return None
        plan, checkpoint = self.plan, self.checkpoint
        metric = self.external.metric(
            plan.metric, self.examples.measured_on, warmup=plan.warmup, threshold=plan.threshold
        )
        tensors = {name: checkpoint.read(name) for name in checkpoint.reader.tensors}
        external, sentence = self.external.decided(tensors, self.examples.measured_on, metric, said=plan.outputs)
        if sentence is not None:
            self.note(sentence)
        return external, sentence

    def bar(self, label: str, total: int) -> AbstractContextManager[Any]:
        """A progress bar, or None where nobody looks."""
        return nullcontext() if self.progress is None else self.progress(label, total)

    def compressor(
        self,
        pairs: Sequence[tuple[Method, Refit]],
        *,
        steps: int | None = None,
        ratios: Sequence[Decimal] | None = None,
    ) -> Compressor:
        """A `Compressor` that can run these pairs, with the calibration inputs where one of them reads any.

        Args:
            steps: stages of one pruning, instead of the plan's.
            ratios: all of a sweep, instead of the plan's.

        Raises:
            UsageError: calibration inputs are needed and there are none, or a pair does not go together.
            UnsupportedModelError: the model cannot hold a result, or a state has no finite norm.
            InputError: the model's outputs are what is fitted, and are not finite.
        """
        from lastcli.reduction.compressor import Compressor

        available = self.examples.has_calibration
        if self.plan.data is not None and (self.plan.match_output or any(map(_runs_model, *zip(*pairs)))):
            _ = self.examples.split  # what the outputs are is what a fit of them compares
        reads = any(method.reads_calibration(refit, available=available) for method, refit in pairs)
        # a frozen selective layer has norms at the mean step of its inputs
        reads = reads or (available and any(not system.time_invariant for system in self.checkpoint.systems))
        calibration = self.examples.calibration if reads or self.plan.match_output else None
        recorded = self.examples.recorded if reads or self.plan.match_output else None
        plan = self.reducing
        plan = plan.replace(
            steps=plan.steps if steps is None else steps, ratios=plan.ratios if ratios is None else tuple(ratios)
        )
        compressor = Compressor(self.checkpoint, plan, calibration, progress=self.progress, recorded=recorded)
        compressor.unfinished = matchings_beside(plan.resume, compressor.decide)
        for method, refit in pairs:
            compressor.check(method, refit)
        if calibration is not None and (self.plan.match_output or any(map(_runs_model, *zip(*pairs)))):
            require_finite_outputs(self.checkpoint, calibration, self.plan.batch_size)
        backwards = any(system.bidirectional for system in compressor.systems)
        if (recorded is not None and recorded.padded_backwards) or (
            calibration is not None and calibration.padded and backwards
        ):
            sentence = (
                "Calibration counts the padding behind the true lengths as well: this model reads backwards, so what "
                "a layer says there reaches every true step."
            )
            self.note(sentence)
            compressor.decide(sentence)
        if recorded is not None and any(refit.moves_poles for _, refit in pairs):
            compressor.decide(
                "Poles refitted layer by layer on the recorded sample of sequences; what a layer loses is not made "
                "good by those behind it."
            )
        return compressor

    def reduce_again(
        self, checkpoint: Checkpoint, plan: Plan, pair: tuple[Method, Refit], states: int
    ) -> list[Reduction]:
        """The reductions of a checkpoint by other options than the plan's, on the calibration inputs it names."""
        from lastcli.evaluation.fitting import fit_split
        from lastcli.reduction.compressor import Compressor

        recorded = self.examples.recorded_of(checkpoint)
        seed = plan.seed if self.plan.seed is None else self.plan.seed  # examples were drawn with the recorded one
        split = None if recorded is not None else self.examples.to_calibrate(seed, bundled=False, checkpoint=checkpoint)
        if split is not None:
            split = fit_split(split.without_labels(), checkpoint.require_forward(), labels=False)
        compressor = Compressor(checkpoint, plan, split, progress=self.progress, recorded=recorded)
        return compressor.reduce(*pair, states=states)

    def __enter__(self) -> Session:
        """Join the other processes and choose the devices, before JAX computes anything."""
        plan = self.plan
        if plan.distributed or plan.coordinator is not None:
            processes.start(plan.coordinator, plan.num_processes, plan.process_id)
        if processes.index() > 0:
            self.note, self.progress = _nobody, None
        self._stack.enter_context(devices.using(plan.devices))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _runs_model(method: Method, refit: Refit) -> bool:
    """Whether the outputs of the whole model are compared."""
    return refit.matches_output or method.needs_model
