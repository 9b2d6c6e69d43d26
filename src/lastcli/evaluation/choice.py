"""Which metric fits a model and its labels, and under which name; what is asked for is refused in one sentence."""

from __future__ import annotations

import dataclasses
import difflib
import math

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.data import Split
from lastcli.evaluation.metrics import ERRORS, FEW_SEQUENCES, IGNORED, METRICS, Metric
from lastcli.evaluation.tasks import generates
from lastcli.families.base import Forward

__all__ = ["choose_metric"]

# Of independent labels: what the plain names mean, as scikit-learn's functions do without an average (f1: macro).
_OF_LABELS = {
    "accuracy": "subset_accuracy",
    "f1": "f1_macro",
    "auroc": "auroc_macro",
    "average_precision": "average_precision_macro",
}
_AVERAGED = tuple(
    f"{kind}_{average}" for kind in ("f1", "auroc", "average_precision") for average in ("micro", "macro")
)
_BINARY = ("auroc", "average_precision", "f1")
_CLASSES = ("accuracy", "f1_micro", "f1_macro", "nll")
# F1 counts every class in every example.
_MOST_CLASSES = 4096


def choose_metric(
    name: str | None, forward: Forward, split: Split, *, warmup: int = 0, threshold: float | None = None
) -> Metric:
    """The metric for a model and a checked split.

    Where no name is given: accuracy for classifiers, auroc_macro for independent labels, perplexity for next tokens,
    mse for regression.

    Raises:
        UsageError: no such metric, or it or the threshold does not fit the model's task.
        InputError: the warm-up leaves no step, or a label has one value only, which a ranking says nothing about.
    """
    fitting = _fitting(forward)
    if name is None:
        name = "perplexity" if "perplexity" in fitting and generates(split, forward) else fitting[0]
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise UsageError(f"There is no metric {name!r}; known: {', '.join(METRICS)}{hint}")
    independent = forward.task == "multilabel"
    name = _OF_LABELS.get(name, name) if independent else name
    if name in _BINARY and name not in fitting and forward.task == "classification":
        instead = "f1_micro or f1_macro" if name == "f1" else "accuracy"
        raise UsageError(f"The metric {name} is of two classes; the model has {forward.outputs}: use {instead}.")
    if name not in fitting:
        kind = {"multilabel": "multi-label"}.get(forward.task, forward.task)
        raise UsageError(f"The metric {name} does not fit a {kind} model; use {_listed(fitting)}.")
    metric = Metric(
        name,
        warmup,
        forward.sequence,
        step=forward.output_step if forward.sequence else 1,
        labels=forward.outputs if independent else 0,
        threshold=_threshold(threshold, name, forward),
    )
    _check_classes(metric, forward, split)
    return _over_time(metric, forward, split)


def _fitting(forward: Forward) -> tuple[str, ...]:
    """The metrics that a model can be asked for, the usual one first."""
    if forward.task == "regression":
        return ERRORS
    if forward.task == "multilabel":
        return ("auroc_macro", "subset_accuracy", "element_accuracy", *reversed(_AVERAGED), "nll")
    binary = _BINARY if forward.outputs <= 2 else ()
    return (*_CLASSES[:1], *binary, *_CLASSES[1:], *(("perplexity",) if forward.sequence else ()))


def _listed(names: tuple[str, ...]) -> str:
    """The usual ones, then the others."""
    usual = ("perplexity", "nll", "accuracy") if "perplexity" in names else ("accuracy", *_BINARY)
    first = [name for name in usual if name in names] or list(names)
    also = [name for name in names if name not in first]
    text = f"{', '.join(first[:-1])} or {first[-1]}" if len(first) > 1 else first[0]
    return f"{text}; also {', '.join(also[:-1])} and {also[-1]}" if also else text


def _threshold(threshold: float | None, name: str, forward: Forward) -> float | None:
    if threshold is None:
        return None
    if forward.task == "regression" or (forward.task == "classification" and forward.outputs > 2):
        raise UsageError(
            "A threshold is of models with two classes or independent labels; leave --threshold out: this model's "
            + (
                "outputs are numbers."
                if forward.task == "regression"
                else f"answer is the largest of {forward.outputs}."
            )
        )
    if not Metric(name).decides:
        raise UsageError(f"The metric {name} looks at no decisions, so --threshold changes nothing; leave it out.")
    return threshold


def _check_classes(metric: Metric, forward: Forward, split: Split) -> None:
    if metric.counts and forward.outputs > _MOST_CLASSES:
        raise UsageError(f"{metric.name} counts every class, and the model has {forward.outputs}; use accuracy.")
    if not metric.ranked or split.y is None:
        return
    alone = not metric.labels or metric.name.endswith("_micro")
    columns = split.y.reshape(-1, 1 if alone else metric.labels)
    for label, column in enumerate(columns.T):
        low, high = (bool((column == value).any()) for value in (0, 1))
        if not (low and high):
            what = "every label" if alone else f"label {label}"
            raise InputError(
                f"{split.name}: {what} is {'1' if high else '0' if low else IGNORED} wherever it is given, so "
                f"{metric.name} would say nothing; take a split (or a range of it) with both, or "
                f"--metric {'f1_micro' if metric.labels else 'accuracy'}."
            )


def _over_time(metric: Metric, forward: Forward, split: Split) -> Metric:
    """The metric with its warm-up checked, and in blocks where a few long sequences are all there is."""

    warmup = metric.warmup
    if warmup < 0 or (warmup and not forward.sequence):
        raise UsageError("A warm-up is a number of first steps to leave out, for models with an output at every step.")
    if not forward.sequence:
        return metric
    steps = (split.x.shape[1] if split.lengths is None else int(split.lengths.min())) // forward.output_step
    if warmup >= steps:
        raise InputError(f"{split.name}: a warm-up of {warmup} leaves nothing of sequences with {steps} outputs.")
    if metric.classifies:
        return metric
    blocks = max(math.isqrt(steps - warmup), 1) if split.n < FEW_SEQUENCES else 1
    return dataclasses.replace(metric, blocks=blocks)
