"""`Session`: the files of one run, opened when first needed and closed together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lastcli.containers import CONTAINERS, MODEL_KEY
from lastcli.errors import UsageError
from lastcli.model.checkpoint import Checkpoint, model_predicate, open_checkpoint
from lastcli.parallel import devices, processes
from lastcli.plan import BUNDLED, METHODS, Method, Plan, Refit
from lastcli.plan.drawn import draws
from lastcli.plan.quantities import divides, parse_share
from lastcli.verbs.shared.finite import require_finite_outputs
from lastcli.verbs.shared.interrupted import matchings_beside
from lastcli.verbs.shared.skeleton import load_skeleton
from lastcli.verbs.shared.sources import (
    DataSource,
    Source,
    choose_calibration,
    choose_checkpoint,
    choose_data,
    named_checkpoint,
)

if TYPE_CHECKING:
    from lastcli.containers.base import TensorInfo
    from lastcli.containers.container import IsModel
    from lastcli.engine.protocol import Reduction
    from lastcli.evaluation.data import Split
    from lastcli.evaluation.external import ExternalForward
    from lastcli.reduction.compressor import Compressor
    from lastcli.reduction.recorded import LayerInputs

__all__ = ["Session"]


def _nobody(sentence: str) -> None:
    """Of several processes only the first one speaks."""


class Session:
    """One run: its plan, its checkpoint, its data.

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
        self._parts: dict[int | None, tuple[Split, Split]] = {}

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
        method = plan.method or METHODS[family.default_methods[int(self.has_calibration)]]
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
        metric = self.external.metric(plan.metric, self.measured_on, warmup=plan.warmup, threshold=plan.threshold)
        tensors = {name: checkpoint.read(name) for name in checkpoint.reader.tensors}
        external, sentence = self.external.decided(tensors, self.measured_on, metric, said=plan.outputs)
        if sentence is not None:
            self.note(sentence)
        return external, sentence

    @cached_property
    def split(self) -> Split:
        """The held-out split, checked against the model (the user's own forward pass checks for itself).

        Raises:
            UsageError: there is none.
            InputError: it is damaged or does not fit the model.
        """
        if divides(self.plan.calibration):
            split = self._divided(self.plan.seed)[1]
        else:
            source = choose_data(self.plan, bundled=self._bundled("data"))
            split = self._load(source, self.plan.limit, "Data", self.plan.seed)
        self._settle_task(split)
        return self._checked(split, labelled=True)

    def _settle_task(self, split: Split) -> None:
        """Let the labels say what the model's outputs are, where no flag and no recipe does."""
        from lastcli.evaluation.tasks import task_of

        if self.external is not None:
            return
        setting = self.checkpoint.settings.get("task")
        if setting is not None and setting.source in ("flag", "recipe"):
            return
        assumed = setting is None or setting.source in ("assumed", "tensors")
        task = task_of(split, self.checkpoint.require_forward(), assumed=assumed)
        if task is not None:
            self.checkpoint.take_task(task)
            kind = {"multilabel": "independent labels", "classification": "classes"}[task]
            self.note(f"Data: the labels of {split.name} are {kind}, so task={task}.")

    def _divided(self, seed: int | None) -> tuple[Split, Split]:
        """The data in two parts without a common example: to calibrate on, to measure on.

        Raises:
            UsageError: there is no data, or too little of it.
        """
        if self.plan.data is None:
            raise UsageError(f"--calibration {self.plan.calibration} divides --data, and there is none; give both.")
        if seed not in self._parts:
            whole = self._load(choose_data(self.plan, bundled=False), self.plan.limit, "Data", seed)
            calibration, rest = whole.divided(parse_share(str(self.plan.calibration)), seed or 0)
            self.note(
                f"Calibration: {calibration.n} examples of {whole.name}, drawn with seed {seed or 0}; the other "
                f"{rest.n} are measured on, none is in both."
            )
            self._parts[seed] = (
                calibration,
                dataclasses.replace(rest, name=f"{whole.name} without the calibration part"),
            )
        return self._parts[seed]

    def _drawn(self, checkpoint: Checkpoint, seed: int | None) -> Split:
        """Inputs for a model that none are at hand of, as long as those of the data where there is any."""
        from lastcli.verbs.shared.drawing import drawn_inputs

        held_out = self.inputs
        if held_out is None and checkpoint.label == BUNDLED:
            held_out = self.split
        split, sentence = drawn_inputs(str(self.plan.calibration), checkpoint.require_forward(), held_out, seed or 0)
        self.note(sentence)
        return split

    def _to_calibrate(self, seed: int | None, *, bundled: bool, checkpoint: Checkpoint | None = None) -> Split | None:
        """The calibration inputs that the plan names, not checked against a model; None where it names none.

        What is drawn is drawn for `checkpoint`, the plan's without one.
        """
        if divides(self.plan.calibration):
            return self._divided(seed)[0].part(self.plan.calibration_limit)
        if draws(self.plan.calibration):
            return self._drawn(checkpoint or self.checkpoint, seed).part(self.plan.calibration_limit)
        source = choose_calibration(self.plan, bundled=bundled)
        return None if source is None else self._load(source, self.plan.calibration_limit, "Calibration", seed)

    @cached_property
    def inputs(self) -> Split | None:
        """The inputs of the held-out split that the plan names, for comparing models on them; None where it has none.

        Not checked against a model yet: that is for whoever runs one on it.
        """
        if self.plan.data is None:
            return None
        source = choose_data(self.plan, bundled=False)
        return self._load(source, self.plan.limit, "Data", self.plan.seed).without_labels()

    @property
    def measured_on(self) -> Split | None:
        """The split a metric is taken on; None where the user's function brings its own data."""
        if self.external is not None and not self.external.needs_data:
            return None
        return self.split

    @property
    def has_calibration(self) -> bool:
        """Whether there are calibration inputs: given, recorded of the layers, or bundled with the bundled model."""
        return (
            self.plan.layer_inputs is not None
            or choose_calibration(self.plan, bundled=self._bundled("calibration")) is not None
        )

    @cached_property
    def calibration(self) -> Split | None:
        """The calibration inputs, or None."""
        if self.plan.layer_inputs is not None:
            return None
        split = self._to_calibrate(self.plan.seed, bundled=self._bundled("calibration"))
        return None if split is None else self._checked(split, labelled=False)

    @property
    def calibrated(self) -> bool:
        """Whether the calibration inputs were read."""
        return self.__dict__.get("calibration") is not None

    @cached_property
    def recorded(self) -> LayerInputs | None:
        """The recorded inputs of the layers, or None.

        Raises:
            InputError: the file is damaged, or of another model.
        """
        return self._recorded_of(self.checkpoint)

    def _recorded_of(self, checkpoint: Checkpoint) -> LayerInputs | None:
        if self.plan.layer_inputs is None:
            return None
        from lastcli.recording.file import read_layer_inputs

        return read_layer_inputs(Path(self.plan.layer_inputs), checkpoint)

    def _bundled(self, what: str) -> bool:
        """Whether the bundled model is what is looked at; it is only asked where the plan names no split."""
        return getattr(self.plan, what) is None and self.source.bundled

    def _load(self, source: DataSource, limit: str | None, what: str, seed: int | None) -> Split:
        from lastcli.evaluation.data import load_split

        plan = self.plan
        split = load_split(
            source.location,
            scale=plan.scale,
            mean=plan.mean,
            std=plan.std,
            limit=limit,
            seed=seed,
            labels=what == "Data",
            columns=plan.columns,
            beside=lambda: self.checkpoint.folder,
        )
        if source.bundled:
            split = dataclasses.replace(split, name=f"{BUNDLED}:{source.location.path.stem}")
        if source.how != "as named":
            self.note(f"{what}: {source.how}, {split.n} examples.")
        if split.classes and split.y is not None:
            named = ", ".join(f"{number} = {name}" for number, name in enumerate(split.classes[:12]))
            more = ", …" if len(split.classes) > 12 else ""
            self.note(f"{what}: classes of {split.name}: {named}{more}.")
        return split

    def _checked(self, split: Split, *, labelled: bool) -> Split:
        """The split as the model takes it; the user's own forward pass checks for itself."""
        from lastcli.evaluation.fitting import fit_split

        forward = None if self.external is not None else self.checkpoint.require_forward()
        if not labelled:
            split = split.without_labels()
        return split if forward is None else fit_split(split, forward, labels=labelled)

    def bar(self, label: str, total: int) -> AbstractContextManager[Any]:
        """A progress bar, or None where nobody looks."""
        return nullcontext() if self.progress is None else self.progress(label, total)

    def compressor(self, pairs: Sequence[tuple[Method, Refit]], *, steps: int | None = None) -> Compressor:
        """A `Compressor` that can run these pairs, with the calibration inputs where one of them reads any.

        Args:
            steps: stages of one pruning, instead of the plan's.

        Raises:
            UsageError: calibration inputs are needed and there are none, or a pair does not go together.
            UnsupportedModelError: the model cannot hold a result, or a state has no finite norm.
            InputError: the model's outputs are what is fitted, and are not finite.
        """
        from lastcli.reduction.compressor import Compressor

        available = self.has_calibration
        if self.plan.data is not None and (self.plan.match_output or any(map(_runs_model, *zip(*pairs)))):
            _ = self.split  # what the outputs are is what a fit of them compares
        reads = any(method.reads_calibration(refit, available=available) for method, refit in pairs)
        # a frozen selective layer has norms at the mean step of its inputs
        reads = reads or (available and any(not system.time_invariant for system in self.checkpoint.systems))
        calibration = self.calibration if reads or self.plan.match_output else None
        recorded = self.recorded if reads or self.plan.match_output else None
        plan = self.reducing if steps is None else self.reducing.replace(steps=steps)
        compressor = Compressor(self.checkpoint, plan, calibration, progress=self.progress, recorded=recorded)
        compressor.unfinished = matchings_beside(plan.resume, compressor.decisions.append)
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
            compressor.decisions.append(sentence)
        if recorded is not None and any(refit.moves_poles for _, refit in pairs):
            compressor.decisions.append(
                "Poles refitted layer by layer on the recorded sample of sequences; what a layer loses is not made "
                "good by those behind it."
            )
        return compressor

    def data_errors(self, checkpoint: Checkpoint, reductions: Sequence[Reduction]) -> list[float | None]:
        """Error of each reduced layer on its recorded inputs; None each where nothing was recorded."""
        recorded = self._recorded_of(checkpoint)
        if recorded is None:
            return [None] * len(reductions)
        from lastcli.engine.system import diagonal

        layers = enumerate(zip(map(diagonal, checkpoint.systems), reductions))
        return [recorded.error(i, system, reduction) for i, (system, reduction) in layers]

    def reduce_again(
        self, checkpoint: Checkpoint, plan: Plan, pair: tuple[Method, Refit], states: int
    ) -> list[Reduction]:
        """The reductions of a checkpoint by other options than the plan's, on the calibration inputs it names."""
        from lastcli.evaluation.fitting import fit_split
        from lastcli.reduction.compressor import Compressor

        recorded = self._recorded_of(checkpoint)
        seed = plan.seed if self.plan.seed is None else self.plan.seed  # examples were drawn with the recorded one
        split = None if recorded is not None else self._to_calibrate(seed, bundled=False, checkpoint=checkpoint)
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
