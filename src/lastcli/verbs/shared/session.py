"""`Session`: the files of one run, opened when first needed and closed together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lastcli import demo
from lastcli.model.checkpoint import Checkpoint, open_checkpoint
from lastcli.plan import BUNDLED, Plan
from lastcli.verbs.shared.sources import Source, choose_calibration, choose_checkpoint, choose_data

if TYPE_CHECKING:
    from lastcli.evaluation.data import Split
    from lastcli.evaluation.external import ExternalForward
    from lastcli.reduction.compressor import Compressor

__all__ = ["Session"]


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
        note: Callable[[str], None] = lambda _: None,
        progress: Callable[..., Any] | None = None,
    ):
        self.plan = plan
        self.flags = dict(flags or {})
        self.model_config = model_config
        self.note = note
        self.progress = progress
        self._given = checkpoint
        self._stack = ExitStack()

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
        checkpoint = self.open(self.source.path, recipe=self.plan.model)
        if self.source.bundled:
            checkpoint.label = BUNDLED
        for sentence in checkpoint.reader.dropped:
            self.note(sentence)
        return checkpoint

    def open(self, path: Path, recipe: Mapping[str, Any] | None = None) -> Checkpoint:
        """Open a checkpoint (or `bundled`) with the flags of this run; closed with the session."""
        bundled = str(path) == BUNDLED and not path.exists()
        checkpoint = open_checkpoint(
            demo.checkpoint() if bundled else path,
            flags=self.flags,
            model_config=self.model_config,
            recipe=recipe,
            model=self.plan.name,
        )
        if bundled:
            checkpoint.label = BUNDLED
        return self._stack.enter_context(checkpoint)

    @cached_property
    def external(self) -> ExternalForward | None:
        """The user's own forward pass (`--forward`), or None."""
        if self.plan.forward is None:
            return None
        from lastcli.evaluation.external import load_external

        return load_external(self.plan.forward)

    @cached_property
    def split(self) -> Split:
        """The held-out split, checked against the model (the user's own forward pass checks for itself).

        Raises:
            UsageError: there is none.
            InputError: it is damaged or does not fit the model.
        """
        source = choose_data(self.plan, self.source)
        return self._open_split(source, self.plan.limit, labelled=True)

    @property
    def measured_on(self) -> Split | None:
        """The split a metric is taken on; None where the user's function brings its own data."""
        if self.external is not None and not self.external.needs_data:
            return None
        return self.split

    @property
    def has_calibration(self) -> bool:
        """Whether there are calibration inputs: given, or bundled with the bundled model."""
        return choose_calibration(self.plan, self.source) is not None

    @cached_property
    def calibration(self) -> Split | None:
        """The calibration inputs, or None."""
        source = choose_calibration(self.plan, self.source)
        return None if source is None else self._open_split(source, self.plan.calibration_limit, labelled=False)

    def _open_split(self, source: Source, limit: str | None, *, labelled: bool) -> Split:
        from lastcli.evaluation.data import load_split
        from lastcli.evaluation.fitting import fit_split

        split = load_split(str(source.path), scale=self.plan.scale, limit=limit)
        if source.bundled:
            split = dataclasses.replace(split, name=f"{BUNDLED}:{source.path.stem}")
        if source.how != "as named":
            self.note(f"{'Data' if labelled else 'Calibration'}: {source.how}, {split.n} examples.")
        forward = None if self.external is not None else self.checkpoint.require_forward()
        if not labelled:
            split = split.without_labels()
        return split if forward is None else fit_split(split, forward, labels=labelled)

    def bar(self, label: str, total: int) -> AbstractContextManager[Any]:
        """A progress bar, or None where nobody looks."""
        return nullcontext() if self.progress is None else self.progress(label, total)

    def compressor(self, *, calibrated: bool) -> Compressor:
        """A `Compressor` over the checkpoint, with the calibration inputs where they are wanted."""
        from lastcli.reduction.compressor import Compressor

        calibration = self.calibration if calibrated else None
        return Compressor(self.checkpoint, self.plan, calibration, progress=self.progress)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
