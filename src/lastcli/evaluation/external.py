"""`--forward`: a user's own function in place of a family's forward pass.

Where the model around the state space layers is not one that `last` knows, the user's code computes the outputs (or the
metric) from the tensors of each candidate, as they would be written to disk: compacted, in the checkpoint's own names,
shapes and dtypes. docs/forward.md has the contract with examples.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.user_code import load_function

if TYPE_CHECKING:
    from lastcli.evaluation.data import Batch, Split
    from lastcli.evaluation.metrics import Metric
    from lastcli.evaluation.sweep import Advance, Evaluation

__all__ = ["ExternalForward", "load_external"]

Tensors = Mapping[str, np.ndarray]

_BATCH = 64
_FORMS = "(tensors, x, lengths) → outputs, (tensors, x, y, lengths) → number, or (tensors) → number"


@dataclass(frozen=True)
class ExternalForward:
    """A user's function over the tensors of a model.

    Attributes:
        spec: as given, `module:function` or `file.py:function`.
        function: the function.
        kind: "outputs" (called batch by batch), "split" (called once with the whole split, returns a number) or
            "alone" (called with the tensors only, returns a number; it brings its own data).
        takes_lengths: whether it is given the true lengths.
    """

    spec: str
    function: Callable[..., Any]
    kind: str = "outputs"
    takes_lengths: bool = True

    @property
    def needs_data(self) -> bool:
        """Whether a split has to be given."""
        return self.kind != "alone"

    def metric(self, name: str | None, split: Split | None, *, warmup: int = 0) -> Metric:
        """The metric of the outputs, or the one whose value the function returns.

        Integer labels mean classification; targets with a time axis, (n, L, p), mean sequence to sequence.

        Raises:
            UsageError: the metric does not fit the labels, or nothing says which one the function returns.
            InputError: the split has no labels, or labels that no metric takes.
        """
        from lastcli.evaluation.metrics import METRICS, Metric, choose_metric

        if self.kind == "alone" or split is None:
            if name is None:
                raise UsageError(f"--forward {self.spec} returns a number; say which with --metric, such as accuracy.")
            if name not in METRICS:
                raise UsageError(f"There is no metric {name!r}; known: {', '.join(METRICS)}.")
            return Metric(name)
        metric = choose_metric(name, self._model(split), split, warmup=warmup)
        return Metric(metric.name) if self.kind == "split" else metric

    def outputs(self, tensors: Tensors, batch: Batch) -> np.ndarray:
        """The outputs for the real examples of a batch, (count, classes), (count, p) or (count, L, p).

        Raises:
            UsageError: the function failed, or did not return one finite-shaped array with an output for each example.
        """
        count = batch.count
        arguments = [_protected(tensors), batch.x[:count]]
        if self.takes_lengths:
            arguments.append(None if batch.lengths is None else batch.lengths[:count])
        outputs = _as_array(self._call(*arguments), self.spec)
        outputs = outputs[:, None] if outputs.ndim == 1 else outputs
        if outputs.ndim < 2 or outputs.shape[0] != count:
            raise UsageError(
                f"--forward {self.spec} returned shape {outputs.shape} for {count} examples; it must return one output "
                "for each, (n, classes), (n, p) or (n, L, p)."
            )
        return outputs

    def evaluate(
        self,
        tensors: Tensors,
        split: Split | None,
        metric: Metric,
        *,
        batch_size: int | None = None,
        progress: Advance | None = None,
    ) -> Evaluation:
        """The metric of one model on a split.

        Args:
            tensors: {name: array}, every tensor of the model.
            split: the data; None only for a function that brings its own.
            metric: as `metric` gave it.
            batch_size: examples in a call.
            progress: told `advance(n)` for every n examples.

        Raises:
            UsageError: the function failed or returned something else than it should.
        """
        if self.kind == "outputs":
            return self._measure(tensors, _given(split), metric, batch_size or _BATCH, progress)
        if self.kind == "alone":
            number, n = self._call(_protected(tensors)), 0 if split is None else split.n
        else:
            whole = _given(split).batch(0, _given(split).n)
            lengths = (whole.lengths,) if self.takes_lengths else ()
            number, n = self._call(_protected(tensors), whole.x, whole.y, *lengths), _given(split).n
        if progress is not None:
            progress.advance(n)
        return _evaluation_of(_as_number(number, metric, self.spec), metric, n)

    def _measure(
        self, tensors: Tensors, split: Split, metric: Metric, batch_size: int, progress: Advance | None
    ) -> Evaluation:
        from lastcli.evaluation.sweep import Evaluation

        center = metric.target_mean(split)
        parts, non_finite = [], 0
        for batch in split.batches(min(batch_size, split.n)):
            outputs, count = self.outputs(tensors, batch), batch.count
            y = _targets(batch, outputs, metric, self.spec)
            lengths = None if batch.lengths is None else batch.lengths[:count]
            parts.append(metric.statistics(outputs, y, lengths, center))
            non_finite += int((~metric.finite(outputs, lengths)).sum())
            if progress is not None:
                progress.advance(count)
        return Evaluation.of(metric, parts, split.n, non_finite)

    def _model(self, split: Split) -> Any:
        """What the labels say about the model, in the form that `choose_metric` takes."""
        from lastcli.families.base import Forward

        y = split.y
        if y is None:
            raise InputError(f"{split.name}: the split has no labels y; an evaluation needs them.")
        classification = y.dtype.kind in "iub"
        if (classification and y.ndim != 1) or y.ndim > 3:
            raise InputError(
                f"{split.name}: labels y have shape {y.shape}; needed are (n,) integer classes, or (n, p) or (n, L, p) "
                "real targets."
            )
        task = "classification" if classification else "regression"
        return Forward(self.function, split.x.shape[-1], 1 if y.ndim == 1 else y.shape[-1], task, sequence=y.ndim == 3)

    def _call(self, *arguments: Any) -> Any:
        try:
            return self.function(*arguments)
        except Exception as error:  # the border to foreign code: whatever it raises is the user's to see
            raise UsageError(f"--forward {self.spec} failed with {type(error).__name__}: {error}") from error


def load_external(spec: str) -> ExternalForward:
    """The function that `module:function` or `path/to/file.py:function` names, ready to evaluate models.

    Raises:
        UsageError: it cannot be loaded, or takes other arguments.
    """
    function = load_function(spec)
    return ExternalForward(spec, function, *_kind(function, spec))


def _kind(function: Callable[..., Any], spec: str) -> tuple[str, bool]:
    """(kind, takes_lengths) from the function's parameters."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some compiled callables have none
        return "outputs", True

    def takes(count: int) -> bool:
        try:
            signature.bind(*[None] * count)
        except TypeError:
            return False
        return True

    if "y" in signature.parameters:
        if takes(4) or takes(3):
            return "split", takes(4)
    elif takes(3) or takes(2):
        return "outputs", takes(3)
    elif takes(1):
        return "alone", False
    raise UsageError(f"--forward {spec} takes {signature}; it must be {_FORMS}.")


def _given(split: Split | None) -> Split:
    if split is None:
        raise UsageError("This needs a held-out split; give an .npz file with --data.")
    return split


def _protected(tensors: Tensors) -> dict[str, np.ndarray]:
    """Read-only views: the tensors a candidate shares with others must not be written to."""
    views = {name: array.view() for name, array in tensors.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def _as_array(outputs: Any, spec: str) -> np.ndarray:
    """A NumPy array from NumPy, JAX or torch."""
    if hasattr(outputs, "detach"):
        outputs = outputs.detach().cpu()
    array = np.asarray(outputs)
    if array.dtype.kind not in "fiub":
        raise UsageError(f"--forward {spec} returned {type(outputs).__name__}, not an array of real numbers.")
    return array.astype(np.promote_types(array.dtype, np.float32))


def _targets(batch: Batch, outputs: np.ndarray, metric: Metric, spec: str) -> np.ndarray:
    if batch.y is None:
        raise InputError("The split has no labels y; an evaluation needs them.")
    y = batch.y[: batch.count]
    if metric.classifies:
        if outputs.ndim != 2 or max(outputs.shape[1], 2) <= y.max(initial=0):
            raise UsageError(
                f"--forward {spec} returned shape {outputs.shape}, but the labels go up to {y.max(initial=0)}; it must "
                "return (n, classes)."
            )
        return y
    y = y[:, None] if y.ndim == 1 else y
    if y.shape != outputs.shape:
        raise UsageError(f"--forward {spec} returned shape {outputs.shape}; the targets have {y.shape}.")
    return y


def _as_number(value: Any, metric: Metric, spec: str) -> float:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise UsageError(f"--forward {spec} returned {type(value).__name__} of shape {array.shape}, not a number.")
    number = float(array.reshape(()))
    allowed = (0.0, 1.0) if metric.classifies else (-math.inf, 100.0) if metric.name == "fit" else (0.0, math.inf)
    if not allowed[0] <= number <= allowed[1]:
        raise UsageError(f"--forward {spec} returned {number:g}; {metric.name} lies between {allowed[0]:g} and "
                         f"{allowed[1]:g}.")  # fmt: skip
    return number


def _evaluation_of(number: float, metric: Metric, n: int) -> Evaluation:
    """A number as an evaluation: one unit whose statistics have that value; it has no interval."""
    from lastcli.evaluation.sweep import Evaluation

    squared = {"mse": number, "fit": (1 - number / 100) ** 2}.get(metric.name, number**2)
    sums = [number, 1.0][: 2 if metric.ranked else 1] if metric.classifies else [number, squared, 1.0, 1.0]
    return Evaluation(metric, number, None, None, n, np.array([sums]))
