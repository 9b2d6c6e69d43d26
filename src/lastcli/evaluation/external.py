"""`--forward`: a user's own function in place of a family's forward pass.

Where the model around the state space layers is not one that `last` knows, the user's code computes the outputs (or the
metric) from the tensors of each candidate, as they would be written to disk: compacted, in the checkpoint's own names,
shapes and dtypes. docs/forward.md has the contract with examples.
"""

from __future__ import annotations

import dataclasses
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
# Probabilities in float32 sum to 1, and stay within [0, 1], about so well.
_NEARLY = 1e-3
# What probabilities of exactly 0 and 1 count as: below those that float32 can hold, above 1 - the next to 1.
_SMALLEST, _EPSILON = 1e-50, 1e-16
# Metrics of independent labels alone.
_OF_LABELS = ("subset_accuracy", "element_accuracy")
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
        probabilities: whether outputs of a classifier are probabilities already (`decided`).
    """

    spec: str
    function: Callable[..., Any]
    kind: str = "outputs"
    takes_lengths: bool = True
    probabilities: bool = False

    @property
    def needs_data(self) -> bool:
        """Whether a split has to be given."""
        return self.kind != "alone"

    def metric(
        self, name: str | None, split: Split | None, *, warmup: int = 0, threshold: float | None = None
    ) -> Metric:
        """The metric of the outputs, or the one whose value the function returns.

        Whole numbers (n,) or (n, L) mean classes, (n, k) or (n, L, k) of 0 and 1 independent labels; other targets mean
        regression, those with a time axis, (n, L, p), sequence to sequence.

        Raises:
            UsageError: the metric does not fit the labels, or nothing says which one the function returns.
            InputError: the split has no labels, or labels that no metric takes.
        """
        from lastcli.evaluation.choice import choose_metric
        from lastcli.evaluation.metrics import METRICS, Metric

        if threshold is not None and self.kind != "outputs":
            raise UsageError(f"--forward {self.spec} returns a number, so --threshold changes nothing; leave it out.")
        if self.kind == "alone" or split is None:
            if name is None:
                raise UsageError(f"--forward {self.spec} returns a number; say which with --metric, such as accuracy.")
            if name not in METRICS:
                raise UsageError(f"There is no metric {name!r}; known: {', '.join(METRICS)}.")
            return Metric(name, given=True)
        if self.kind == "split" and name in METRICS:
            return Metric(name, given=True)
        metric = choose_metric(name, self._model(split, name), split, warmup=warmup, threshold=threshold)
        return Metric(metric.name, given=True) if self.kind == "split" else metric

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
            if metric.classifies:
                if metric.sequence and outputs.ndim == 2:
                    outputs = outputs[..., None]  # one logit a step
                outputs = self._logits(outputs, metric)
            lengths = None if batch.lengths is None else batch.lengths[:count]
            parts.append(metric.statistics(outputs, y, lengths, center))
            non_finite += int((~metric.finite(outputs, lengths)).sum())
            if progress is not None:
                progress.advance(count)
        return Evaluation.of(metric, parts, split.n, non_finite)

    def decided(
        self, tensors: Tensors, split: Split | None, metric: Metric, *, said: str | None
    ) -> tuple[ExternalForward, str | None]:
        """With its outputs known as logits or probabilities, by what the user says or by those of the full model.

        Args:
            tensors: of the full model.
            said: "logits", "probabilities", or None to look at the outputs of the first examples: probabilities lie in
                [0, 1], and those of several classes sum to 1.

        Returns:
            The function, and a sentence where it was looked at and its outputs are taken as probabilities.

        Raises:
            UsageError: it is said of a function that returns something else.
        """
        if self.kind != "outputs" or not metric.classifies:
            if said is not None:
                what = "returns a number" if self.kind != "outputs" else "is measured as a regression"
                raise UsageError(f"--forward {self.spec} {what}, so --outputs says nothing; leave it out.")
            return self, None
        if said is None:
            split = _given(split)
            first = self.outputs(tensors, split.batch(0, min(_BATCH, split.n)))
            single = metric.labels > 0 or first.shape[-1] == 1 or (metric.sequence and first.ndim == 2)
            if not looks_like_probabilities(first, independent=single):
                return self, None
            return dataclasses.replace(self, probabilities=True), (
                f"--forward {self.spec} returns numbers in [0, 1]"
                + ("" if single else " that sum to 1")
                + ", taken as probabilities: no sigmoid or softmax is applied to them. Say --outputs logits if they "
                "are none."
            )
        return dataclasses.replace(self, probabilities=said == "probabilities"), None

    def _logits(self, outputs: np.ndarray, metric: Metric) -> np.ndarray:
        """Outputs of which a softmax, or a sigmoid of one or of independent ones, gives the probabilities.

        Raises:
            UsageError: they are declared, or were found, to be probabilities and are none.
        """
        if not self.probabilities:
            return outputs
        single = metric.labels > 0 or outputs.shape[-1] == 1
        known = outputs[np.isfinite(outputs)]
        if known.size and not (known.min() >= -_NEARLY and known.max() <= 1 + _NEARLY):
            raise UsageError(
                f"--forward {self.spec} returned {known.min():g} to {known.max():g}, which are no probabilities; say "
                "--outputs logits."
            )
        p = np.clip(outputs.astype(np.float64), 0, 1)
        with np.errstate(divide="ignore"):
            if not single:
                return np.log(p)
            # a probability that was rounded to 0 or 1 keeps its place, and a finite logit
            return np.log(np.maximum(p, _SMALLEST)) - np.log(np.maximum(1 - p, _EPSILON))

    def _model(self, split: Split, name: str | None = None) -> Any:
        """What the labels say about the model, in the form that `choose_metric` takes."""
        from lastcli.evaluation.tasks import only_labels
        from lastcli.families.base import Forward

        y = split.y
        if y is None:
            raise InputError(f"{split.name}: the split has no labels y; an evaluation needs them.")
        features = split.x.shape[-1]
        if y.dtype.kind not in "iub" and y.ndim in (1, 2, 3):
            outputs = 1 if y.ndim == 1 else y.shape[-1]
            return Forward(self.function, features, outputs, "regression", sequence=y.ndim == 3)
        over_steps = y.ndim == 2 and y.shape == split.x.shape[:2] and name not in _OF_LABELS
        if y.ndim == 1 or (y.ndim == 2 and (over_steps or not only_labels(y))):
            return Forward(self.function, features, max(int(y.max()) + 1, 2), sequence=y.ndim == 2)
        if y.ndim in (2, 3) and only_labels(y):
            return Forward(self.function, features, y.shape[-1], "multilabel", sequence=y.ndim == 3)
        raise InputError(
            f"{split.name}: labels y have shape {y.shape}; needed are classes (n,) or (n, L), labels of 0 and 1 (n, k) "
            "or (n, L, k), or real targets (n, p) or (n, L, p)."
        )

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
    if metric.labels:
        if outputs.shape != y.shape:
            raise UsageError(f"--forward {spec} returned shape {outputs.shape}; the labels have {y.shape}.")
        return y
    if metric.classifies:
        wanted = "(n, L, classes)" if metric.sequence else "(n, classes)"
        single = metric.sequence and outputs.ndim == 2  # one logit a step
        classes = 2 if single else max(outputs.shape[-1], 2)
        fits = single or (outputs.ndim == y.ndim + 1)
        if not fits or outputs.shape[: y.ndim] != y.shape or classes <= y.max(initial=0):
            raise UsageError(
                f"--forward {spec} returned shape {outputs.shape}, but the labels go up to {y.max(initial=0)} and "
                f"have shape {y.shape}; it must return {wanted}."
            )
        return y
    y = y[:, None] if y.ndim == 1 else y
    if y.shape != outputs.shape:
        raise UsageError(f"--forward {spec} returned shape {outputs.shape}; the targets have {y.shape}.")
    return y


def looks_like_probabilities(outputs: np.ndarray, *, independent: bool) -> bool:
    """Whether all outputs lie in [0, 1], and unless they are `independent` sum to 1 over the last axis."""
    if not np.isfinite(outputs).all() or outputs.min() < 0 or outputs.max() > 1:
        return False
    return independent or bool((abs(outputs.sum(-1) - 1) <= _NEARLY).all())


def _as_number(value: Any, metric: Metric, spec: str) -> float:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise UsageError(f"--forward {spec} returned {type(value).__name__} of shape {array.shape}, not a number.")
    number = float(array.reshape(()))
    allowed = (0.0, 1.0) if metric.share else (-math.inf, 100.0) if metric.name == "fit" else (0.0, math.inf)
    if not allowed[0] <= number <= allowed[1]:
        raise UsageError(f"--forward {spec} returned {number:g}; {metric.name} lies between {allowed[0]:g} and "
                         f"{allowed[1]:g}.")  # fmt: skip
    return number


def _evaluation_of(number: float, metric: Metric, n: int) -> Evaluation:
    """A number as an evaluation: one unit whose statistics have that value; it has no interval."""
    from lastcli.evaluation.sweep import Evaluation

    squared = {"mse": number, "fit": (1 - number / 100) ** 2}.get(metric.name, number**2)
    sums = [number] if metric.classifies else [number, squared, 1.0, 1.0]
    return Evaluation(metric, number, None, None, n, np.array([sums]))
