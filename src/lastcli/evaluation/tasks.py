"""Which task the labels of a split ask for, where it is not the model's own.

| labels y | task |
|---|---|
| (n,) whole numbers | a class for each sequence |
| (n, k) of 0 and 1, for k outputs | multilabel: k independent labels |
| (n, L) whole numbers, for a model with outputs at every step | a class for each step |
| (n, L, k) of 0 and 1, for k outputs at every step | multilabel at every step |
| none, and x are tokens that the outputs are about | the next token |
| (n, p), (n, L, p) numbers | regression |
"""

from __future__ import annotations

import numpy as np

from lastcli.evaluation.answers import IGNORED
from lastcli.evaluation.data import Split
from lastcli.families.base import Forward

__all__ = ["generates", "only_labels", "task_of", "why_no_class"]

_NUMBERS = "; for targets that are numbers describe the model with --set task=regression"


def generates(split: Split, forward: Forward) -> bool:
    """Whether the tokens of the inputs are labels: each output is about a token that it has not seen."""
    if not forward.sequence:
        return False
    if forward.tokens:
        return True
    return (
        forward.generates is not None
        and split.x.ndim == 2
        and split.x.dtype.kind in "iu"
        and 1 < forward.outputs == forward.features
    )


def task_of(split: Split, forward: Forward, *, assumed: bool) -> str | None:
    """The task that the labels ask for; None where they leave the model its own.

    Args:
        split: as it was read.
        forward: the model.
        assumed: whether nobody said what the model's task is, so that labels which fit two of them choose.
    """
    y = split.y
    if forward.layout != "single":
        return None
    if y is None:
        return "classification" if forward.task == "regression" and generates(split, forward) else None
    whole = y.dtype.kind in "iub"
    if forward.task == "classification":
        independent = y.ndim == (3 if forward.sequence else 2) and y.shape[-1] == forward.outputs > 1
        if not independent or forward.several > 1 or not only_labels(y) or (not forward.sequence and _one_hot(y)):
            return None
        return "multilabel"
    if forward.task != "regression" or not whole or forward.outputs == 1:
        return None
    if y.ndim == (2 if forward.sequence else 1):
        return "classification"
    return "multilabel" if assumed and y.shape[-1] == forward.outputs and only_labels(y) and not _one_hot(y) else None


def only_labels(y: np.ndarray) -> bool:
    """Whether there are zeros, ones and -100 alone."""
    return bool(((y == 0) | (y == 1) | (y == IGNORED)).all())


def why_no_class(y: np.ndarray, forward: Forward) -> str:
    """What labels of a sequence that are no class might be, as the rest of a sentence."""
    if y.ndim != 2 or y.shape[1] != forward.outputs:
        return (
            "; for targets that are numbers describe the model with --set task=regression"
            if y.dtype.kind == "f"
            else ""
        )
    if only_labels(y) and _one_hot(y):
        return (
            ": give the number of the class (y.argmax(1)), or, if they are labels of their own, --set task=multilabel"
        )
    if only_labels(y):
        return "; for independent labels describe the model with --set task=multilabel"
    return _NUMBERS


def _one_hot(y: np.ndarray) -> bool:
    """Whether every row has exactly one 1, as a class written as a row of zeros and ones has."""
    return bool((y == 1).sum(-1).min(initial=2) == 1 == (y == 1).sum(-1).max(initial=0))
