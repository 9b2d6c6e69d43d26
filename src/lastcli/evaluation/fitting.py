"""Does a split fit a model? Shapes, ranges and finite values, each with one clear sentence where it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from lastcli.errors import InputError
from lastcli.evaluation.data import Split
from lastcli.evaluation.metrics import IGNORED
from lastcli.evaluation.readers.stored import Array
from lastcli.evaluation.tasks import generates, why_no_class
from lastcli.families.base import Forward

__all__ = ["fit_split", "random_split"]

CHUNK_BYTES = 8 << 20


def fit_split(split: Split, forward: Forward, *, labels: bool = True) -> Split:
    """The split in the shape the model takes, or the reason why it cannot be used. Doing it twice changes nothing.

    Args:
        split: as it was read.
        forward: the model.
        labels: whether `y` is needed (not for calibration).

    Raises:
        InputError: wrong feature count, tokens or labels out of range, one class only, NaN or infinite inputs, a
            missing scale, targets or lengths of the wrong shape.
    """
    if split.n == 0:
        raise InputError(f"{split.name} is an empty split.")
    x = _inputs(split, forward)
    split = dataclasses.replace(split, x=x)
    _finite(split)
    split = dataclasses.replace(split, lengths=_lengths(split, forward))
    if not labels:
        return split
    if split.y is None and generates(split, forward):
        split = dataclasses.replace(split, y=_next_tokens(split, 1 if forward.generates is None else forward.generates))
    if split.y is None:
        raise InputError(f"{split.name} has no labels: add the array 'y', or give it as calibration data only.")
    kinds = {"classification": _classes, "multilabel": _labels}
    y = kinds.get(forward.task, _targets)(split, split.y, forward)
    return dataclasses.replace(split, y=y)


def random_split(forward: Forward, *, n: int = 8, length: int = 64, seed: int = 0) -> Split:
    """Unlabelled standard normal inputs of the shape the model takes: to compare two models where no data is at hand.

    At least as long as one output needs, and a multiple of the steps that the model folds into one.
    """
    length = max(length, forward.output_step)
    length = -(-length // forward.input_step) * forward.input_step
    shape = (n, *_side_by_side(forward), length)
    if forward.tokens:
        tokens = np.random.default_rng(seed).integers(0, forward.features, (n, length), dtype=np.int32)
        return Split(tokens, name="random tokens")
    x = np.random.default_rng(seed).standard_normal((*shape, forward.features), dtype=np.float32)
    return Split(x, name="random inputs")


def _inputs(split: Split, forward: Forward) -> Array:
    x, beside = split.x, _side_by_side(forward)
    pair = bool(beside)
    if forward.layout == "series" and (x.ndim != 4 or x.shape[1] != forward.series):
        raise InputError(
            f"{split.name}: the model reads {forward.series} sequences side by side, so x must be "
            f"(n, {forward.series}, L, {forward.features}), not {x.shape}."
        )
    if forward.layout == "pair" and (x.ndim < 3 or x.shape[1] != 2):
        raise InputError(
            f"{split.name}: the model compares two sequences, so x must be (n, 2, L) or (n, 2, L, F), not {x.shape}."
        )
    axes = 3 if pair else 2
    if x.ndim == axes and forward.features == 1:
        x = x[..., None]
    if x.ndim not in (axes, axes + 1):
        expected = "(n, 2, L) or (n, 2, L, F)" if pair else "(n, L) or (n, L, F)"
        raise InputError(f"{split.name}: x has shape {x.shape}; the model takes {expected}.")
    if x.ndim == axes + 1:
        if forward.tokens:
            raise InputError(f"{split.name}: x has shape {x.shape}; the model takes whole-number tokens, (n, L).")
        if x.shape[-1] != forward.features:
            raise InputError(
                f"{split.name}: x has {_count(x.shape[-1], 'feature')} (shape {x.shape}), "
                f"the model takes {forward.features}."
            )
        if x.dtype.kind in "iu" and not split.normalised:
            raise InputError(
                f"{split.name}: x holds whole numbers ({x.dtype}) and nothing says how they become inputs; give "
                "--scale 1/255 for 8-bit images, --scale 1 to take them as they are, or an array 'scale' in the file."
            )
        _normalises(split, forward)
        return np.asarray(x, np.float32) if x.dtype.kind == "b" else x
    return _tokens(split, x, forward)


def _side_by_side(forward: Forward) -> tuple[int, ...]:
    """The axis of sequences that make one example, where there is one."""
    return {"pair": (2,), "series": (forward.series,)}.get(forward.layout, ())


def _next_tokens(split: Split, ahead: int) -> np.ndarray:
    """(n, L): the token that stands so many steps ahead; nothing is known of what follows the last."""
    x = np.asarray(split.x)
    steps = x.shape[1]
    y = np.full(x.shape, IGNORED, np.int64)
    y[:, : steps - ahead] = x[:, ahead:]
    if split.lengths is not None:
        y[np.arange(steps) >= split.lengths[:, None] - ahead] = IGNORED
    return y


def _tokens(split: Split, x: Array, forward: Forward) -> Array:
    if x.dtype.kind == "f":
        raise InputError(
            f"{split.name}: x has shape {x.shape} and dtype {x.dtype}; the model takes {forward.features} features "
            "a step, as (n, L, F), or whole-number tokens."
        )
    if split.scale not in (None, 1) or split.mean is not None or split.std is not None:
        what = "scale" if split.mean is None and split.std is None else "normalisation"
        raise InputError(f"{split.name}: a {what} was declared, but x holds tokens (shape {x.shape}).")
    low, high, wrong = 0, 0, ""
    for start, part in _chunks(x):
        bad = (part < 0) | (part >= forward.features)
        if bad.any() and not wrong:
            example, *where = (int(i) for i in np.argwhere(bad)[0])
            wrong = f"; the first that it does not know is {int(part[(example, *where)])} at example {start + example}"
        low, high = (
            (int(part.min()), int(part.max()))
            if start == 0
            else (
                min(low, int(part.min())),
                max(high, int(part.max())),
            )
        )
    if wrong:
        raise InputError(
            f"{split.name}: tokens go from {low} to {high}, the model knows 0 to {forward.features - 1}{wrong}."
        )
    return x


def _chunks(x: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Examples in pieces that fit into a little memory, each with the number of its first one."""
    rows = max(CHUNK_BYTES // max(x[:1].nbytes, 1), 1)
    for start in range(0, x.shape[0], rows):
        yield start, np.asarray(x[start : start + rows])


def _normalises(split: Split, forward: Forward) -> None:
    for key, numbers in (("mean", split.mean), ("std", split.std)):
        if numbers is not None and len(numbers) not in (1, forward.features):
            raise InputError(
                f"{split.name}: {key} has {len(numbers)} numbers; one, or one for each of the "
                f"{_count(forward.features, 'feature')}, is needed."
            )


def _finite(split: Split) -> None:
    if split.x.dtype.kind != "f":
        return
    for start, part in _chunks(split.x):
        with np.errstate(over="ignore", invalid="ignore"):
            # what the model sees is float32: a float64 beyond its range is infinite there
            bad = ~np.isfinite(split.inputs(slice(start, start + len(part))))
        if bad.any():
            example, *where = (int(i) for i in np.argwhere(bad)[0])
            value = part[(example, *where)]
            raise InputError(
                f"{split.name}: x holds {value} at example {start + example}, position {tuple(where)}; "
                "inputs must be finite."
            )


def _lengths(split: Split, forward: Forward) -> np.ndarray | None:
    lengths = split.lengths
    if lengths is None:
        return None
    if forward.layout == "series":
        raise InputError(f"{split.name}: sequences side by side have one length; leave 'lengths' out.")
    shape = (split.n, 2) if forward.layout == "pair" else (split.n,)
    if lengths.shape != shape:
        raise InputError(f"{split.name}: lengths has shape {lengths.shape}; {shape} is needed.")
    steps = split.x.shape[2 if forward.layout == "pair" else 1]
    wrong = (lengths < 1) | (lengths > steps)
    if wrong.any():
        raise InputError(
            f"{split.name}: lengths go from {int(lengths.min())} to {int(lengths.max())}; x has {steps} steps; the "
            f"first that does not fit is {int(lengths[wrong][0])} at example {int(np.argwhere(wrong)[0][0])}."
        )
    return lengths


def _classes(split: Split, y: np.ndarray, forward: Forward) -> np.ndarray:
    if forward.sequence:
        return _step_classes(split, y, forward)
    if y.shape == (split.n, 1):
        y = y[:, 0]
    if y.ndim != 1:
        hint = why_no_class(y, forward)
        raise InputError(f"{split.name}: y has shape {y.shape}; one class a sequence, (n,), is needed{hint}.")
    if y.dtype.kind == "f":
        odd = ~np.isfinite(y) | (y != np.round(y))
        if odd.any():
            example = int(np.argmax(odd))
            raise InputError(
                f"{split.name}: y holds fractions or NaN ({y[example]} at example {example}), but the model is a "
                "classifier."
            )
        y = y.astype(np.int64)
    low, high = int(y.min()), int(y.max())
    classes = max(forward.outputs, 2)  # one output is the logit of class 1
    if low < 0 or high >= classes:
        bad = int(np.argmax((y < 0) | (y >= classes)))
        raise InputError(
            f"{split.name}: label {int(y[bad])} of example {bad} is out of range; "
            f"the model has {_count(classes, 'class', 'classes')}, 0 to {classes - 1}."
        )
    if split.n > 1 and low == high:
        raise InputError(
            f"{split.name}: all {split.n} labels are class {low}, so accuracy would say nothing; "
            "take a split (or a range of it) with several classes."
        )
    return y


def _step_classes(split: Split, y: np.ndarray, forward: Forward) -> np.ndarray:
    """A class for every step, -100 where it is not scored."""
    shape = _over_steps(split, forward, *([forward.several] if forward.several > 1 else []))
    y = y[..., 0] if y.shape == (*shape, 1) else y
    y = _whole(split, y, shape, fractions=False)
    classes = max(forward.outputs, 2)
    wrong = (y != IGNORED) & ((y < 0) | (y >= classes))
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{split.name}: label {int(y[where])} at {where} is out of range; the model knows 0 to "
            f"{classes - 1} (and {IGNORED} for steps that are not scored)."
        )
    if not (y != IGNORED).any():
        raise InputError(f"{split.name}: no step has a label, so nothing can be scored.")
    return y


def _labels(split: Split, y: np.ndarray, forward: Forward) -> np.ndarray:
    """Independent labels, 0 or 1 each, -100 where one is not scored."""
    shape = _over_steps(split, forward, forward.outputs) if forward.sequence else (split.n, forward.outputs)
    y = y[..., None] if forward.outputs == 1 and y.shape == shape[:-1] else y
    y = _whole(split, y, shape, fractions=True)
    wrong = (y != IGNORED) & (y != 0) & (y != 1)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{split.name}: label {int(y[where])} at {where} is neither 0 nor 1 (nor {IGNORED} for what is not scored)."
        )
    scored = y[y != IGNORED]
    if not scored.size or (split.n > 1 and scored.min() == scored.max()):
        what = f"all labels are {int(scored[0])}" if scored.size else "no label is scored"
        raise InputError(f"{split.name}: {what}, so nothing can be measured; take a split with both.")
    return y


def _over_steps(split: Split, forward: Forward, *more: int) -> tuple[int, ...]:
    """The shape of something for every output over time.

    Raises:
        InputError: a sequence is too short for an output.
    """
    shortest = split.x.shape[1] if split.lengths is None else int(split.lengths.min())
    if shortest < forward.output_step:
        raise InputError(
            f"{split.name}: a sequence has {_count(shortest, 'step')}, but the model has an output only after every "
            f"{forward.output_step} of them."
        )
    return (split.n, split.x.shape[1] // forward.output_step, *more)


def _whole(split: Split, y: np.ndarray, shape: tuple[int, ...], *, fractions: bool) -> np.ndarray:
    """Labels as whole numbers; `fractions`: also those that are stored as 0.0 and 1.0."""
    fine = y.shape == shape and (fractions or y.dtype.kind in "iub")
    if fine and y.dtype.kind == "f":
        fine = bool(np.isfinite(y).all() and (y == np.round(y)).all())
    if not fine:
        raise InputError(
            f"{split.name}: y has shape {y.shape} and dtype {y.dtype}; whole numbers for every "
            f"{'step' if len(shape) > 1 and shape[1:2] == split.x.shape[1:2] else 'output'}, {shape}, are needed "
            f"({IGNORED} where one is not scored)."
        )
    return y.astype(np.int64)


def _targets(split: Split, y: np.ndarray, forward: Forward) -> np.ndarray:
    shape = _over_steps(split, forward, forward.outputs) if forward.sequence else (split.n, forward.outputs)
    if y.shape == shape[:-1] and forward.outputs == 1:
        y = y[..., None]
    if y.shape != shape:
        raise InputError(f"{split.name}: y has shape {y.shape}; the model's outputs have shape {shape}.")
    if not np.isfinite(y).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(y))[0])
        raise InputError(f"{split.name}: y is not finite at {where}; targets must be finite.")
    return y.astype(np.float64) if y.dtype.kind != "f" else y


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
