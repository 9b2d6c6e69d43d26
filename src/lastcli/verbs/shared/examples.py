"""`Examples`: what one run measures on and calibrates on, read when first needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lastcli.errors import UsageError
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import BUNDLED, Plan
from lastcli.plan.drawn import draws
from lastcli.plan.quantities import divides, parse_share
from lastcli.verbs.shared.sources import DataSource, Source, choose_calibration, choose_data

if TYPE_CHECKING:
    from lastcli.engine.protocol import Reduction
    from lastcli.evaluation.data import Split
    from lastcli.evaluation.external import ExternalForward
    from lastcli.reduction.recorded import LayerInputs

__all__ = ["Examples", "Run"]


class Run(Protocol):
    """What is asked of the run they belong to.

    Attributes:
        plan: the options, which name the files.
        note: called with sentences for the user.
        source: which checkpoint was chosen.
        checkpoint: it, open; what it is made of says which examples fit.
        external: the user's own forward pass, or None.
    """

    plan: Plan
    note: Callable[[str], None]

    @property
    def source(self) -> Source:  # noqa: D102
        ...

    @property
    def checkpoint(self) -> Checkpoint:  # noqa: D102
        ...

    @property
    def external(self) -> ExternalForward | None:  # noqa: D102
        ...


class Examples:
    """The held-out split, the calibration inputs, and the inputs of layers that were recorded."""

    def __init__(self, run: Run):
        self._run, self._plan = run, run.plan
        self._parts: dict[int | None, tuple[Split, Split]] = {}

    @cached_property
    def split(self) -> Split:
        """The held-out split, checked against the model (the user's own forward pass checks for itself).

        Raises:
            UsageError: there is none.
            InputError: it is damaged or does not fit the model.
        """
        if divides(self._plan.calibration):
            split = self._divided(self._plan.seed)[1]
        else:
            source = choose_data(self._plan, bundled=self._bundled("data"))
            split = self._load(source, self._plan.limit, "Data", self._plan.seed)
        self._settle_task(split)
        return self._checked(split, labelled=True)

    def _settle_task(self, split: Split) -> None:
        """Let the labels say what the model's outputs are, where no flag and no recipe does."""
        from lastcli.evaluation.tasks import task_of

        if self._run.external is not None:
            return
        setting = self._run.checkpoint.settings.get("task")
        if setting is not None and setting.source in ("flag", "recipe"):
            return
        assumed = setting is None or setting.source in ("assumed", "tensors")
        task = task_of(split, self._run.checkpoint.require_forward(), assumed=assumed)
        if task is not None:
            self._run.checkpoint.take_task(task)
            kind = {"multilabel": "independent labels", "classification": "classes"}[task]
            self._run.note(f"Data: the labels of {split.name} are {kind}, so task={task}.")

    def _divided(self, seed: int | None) -> tuple[Split, Split]:
        """The data in two parts without a common example: to calibrate on, to measure on.

        Raises:
            UsageError: there is no data, or too little of it.
        """
        if self._plan.data is None:
            raise UsageError(f"--calibration {self._plan.calibration} divides --data, and there is none; give both.")
        if seed not in self._parts:
            whole = self._load(choose_data(self._plan, bundled=False), self._plan.limit, "Data", seed)
            calibration, rest = whole.divided(parse_share(str(self._plan.calibration)), seed or 0)
            self._run.note(
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
        split, sentence = drawn_inputs(str(self._plan.calibration), checkpoint.require_forward(), held_out, seed or 0)
        self._run.note(sentence)
        return split

    def to_calibrate(self, seed: int | None, *, bundled: bool, checkpoint: Checkpoint | None = None) -> Split | None:
        """The calibration inputs that the plan names, not checked against a model; None where it names none.

        What is drawn is drawn for `checkpoint`, the plan's without one.
        """
        if divides(self._plan.calibration):
            return self._divided(seed)[0].without_labels().part(self._plan.calibration_limit, seed)
        if draws(self._plan.calibration):
            return self._drawn(checkpoint or self._run.checkpoint, seed).part(self._plan.calibration_limit, seed)
        source = choose_calibration(self._plan, bundled=bundled)
        return None if source is None else self._load(source, self._plan.calibration_limit, "Calibration", seed)

    @cached_property
    def inputs(self) -> Split | None:
        """The inputs of the held-out split that the plan names, for comparing models on them; None where it has none.

        Not checked against a model yet: that is for whoever runs one on it.
        """
        if self._plan.data is None:
            return None
        source = choose_data(self._plan, bundled=False)
        return self._load(source, self._plan.limit, "Data", self._plan.seed).without_labels()

    @property
    def measured_on(self) -> Split | None:
        """The split a metric is taken on; None where the user's function brings its own data."""
        if self._run.external is not None and not self._run.external.needs_data:
            return None
        return self.split

    @property
    def has_calibration(self) -> bool:
        """Whether there are calibration inputs: given, recorded of the layers, or bundled with the bundled model."""
        return (
            self._plan.layer_inputs is not None
            or choose_calibration(self._plan, bundled=self._bundled("calibration")) is not None
        )

    @cached_property
    def calibration(self) -> Split | None:
        """The calibration inputs, or None."""
        if self._plan.layer_inputs is not None:
            return None
        split = self.to_calibrate(self._plan.seed, bundled=self._bundled("calibration"))
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
        return self.recorded_of(self._run.checkpoint)

    def recorded_of(self, checkpoint: Checkpoint) -> LayerInputs | None:
        """The recorded inputs of a checkpoint's layers, or None."""
        if self._plan.layer_inputs is None:
            return None
        from lastcli.recording.file import read_layer_inputs

        return read_layer_inputs(Path(self._plan.layer_inputs), checkpoint)

    def _bundled(self, what: str) -> bool:
        """Whether the bundled model is what is looked at; it is only asked where the plan names no split."""
        return getattr(self._plan, what) is None and self._run.source.bundled

    def _load(self, source: DataSource, limit: str | None, what: str, seed: int | None) -> Split:
        from lastcli.evaluation.data import load_split

        plan = self._plan
        split = load_split(
            source.location,
            scale=plan.scale,
            mean=plan.mean,
            std=plan.std,
            limit=limit,
            seed=seed,
            labels=what == "Data",
            columns=plan.columns,
            beside=lambda: self._run.checkpoint.folder,
        )
        if source.bundled:
            split = dataclasses.replace(split, name=f"{BUNDLED}:{source.location.path.stem}")
        if source.how != "as named":
            self._run.note(f"{what}: {source.how}, {split.n} examples.")
        if split.classes and split.y is not None:
            named = ", ".join(f"{number} = {name}" for number, name in enumerate(split.classes[:12]))
            more = ", …" if len(split.classes) > 12 else ""
            self._run.note(f"{what}: classes of {split.name}: {named}{more}.")
        return split

    def _checked(self, split: Split, *, labelled: bool) -> Split:
        """The split as the model takes it; the user's own forward pass checks for itself."""
        from lastcli.evaluation.fitting import fit_split

        forward = None if self._run.external is not None else self._run.checkpoint.require_forward()
        if not labelled:
            split = split.without_labels()
        return split if forward is None else fit_split(split, forward, labels=labelled)

    def data_errors(self, checkpoint: Checkpoint, reductions: Sequence[Reduction]) -> list[float | None]:
        """Error of each reduced layer on its recorded inputs; None each where nothing was recorded."""
        recorded = self.recorded_of(checkpoint)
        if recorded is None:
            return [None] * len(reductions)
        from lastcli.engine.system import diagonal

        layers = enumerate(zip(map(diagonal, checkpoint.systems), reductions))
        return [recorded.error(i, system, reduction) for i, (system, reduction) in layers]
