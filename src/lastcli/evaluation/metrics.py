"""Metrics as sums of per-example statistics, so that no metric ever needs all outputs at once.

Each metric reduces the outputs of one example to a few numbers ("statistics"); its value is a function of their sums
over the split. The same statistics give the interval (Wilson for accuracy, bootstrap for errors) and the paired
comparison of two models in `significance`. `Metric.statistics` works on NumPy and JAX arrays alike and is traceable.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.data import Split
from lastcli.evaluation.ranking import RANKED, ranked_value, resampled_values
from lastcli.families.base import Forward

__all__ = ["IGNORED", "METRICS", "Metric", "bootstrap_sums", "choose_metric", "wilson_interval"]

# Metrics of models with a class at every step.
OVER_TIME = ("nll", "perplexity")
METRICS = ("accuracy", *RANKED, "mse", "rmse", "mae", "fit", *OVER_TIME)
# The label of a step that is not scored.
IGNORED = -100
Z95 = 1.959963984540054
RESAMPLES = 2000
# Below this many sequences their steps are cut into blocks, the units of the bootstrap (Künsch 1989).
FEW_SEQUENCES = 20
# No wider than any target, so that subtracting it leaves their precision as it is.
_ZERO = np.float32(0)


@dataclass(frozen=True)
class Metric:
    """One way to score outputs.

    Attributes:
        name: accuracy; auroc, average_precision, f1 of a classifier of two classes, with one logit or two;
            mse, rmse, mae over all kept steps and outputs; fit = 100·(1 - ‖y - ŷ‖/‖y - mean(y)‖), the fit
            index of system identification (Ljung, System Identification, 2nd ed., section 17), in percent. Of several
            outputs the sums run over all of them (`pooled`): one root and one quotient, not the mean over outputs.
            Of models with a class at every step (next tokens) accuracy is the share of the scored steps, nll the mean
            of -log p(label) over them, in nats, and perplexity exp(nll); a label of -100 is not scored.
        warmup: first outputs of each sequence that are left out, for outputs with a time axis.
        sequence: whether outputs have a time axis.
        blocks: time blocks an example is cut into; 1 except for few long sequences.
        step: steps of the input from one output to the next (`Forward.output_step`).
    """

    name: str
    warmup: int = 0
    sequence: bool = False
    blocks: int = 1
    step: int = 1

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is a better model."""
        return self.name == "fit" or self.classifies

    @property
    def classifies(self) -> bool:
        """Whether it is one of a classifier: of shares the drop is a difference."""
        return self.name == "accuracy" or self.ranked or self.name in OVER_TIME

    @property
    def ranked(self) -> bool:
        """Whether it is of a binary classifier, and of all examples together: no sum over examples (`ranking`)."""
        return self.name in RANKED

    @property
    def pooled(self) -> bool:
        """Whether the value over several outputs together is another number than the mean of their own values."""
        return self.name in ("rmse", "fit")

    def statistics(self, outputs: Any, y: Any, lengths: Any = None, center: Any = _ZERO, xp: Any = np) -> Any:
        """Per-example statistics of a batch.

        Args:
            outputs: (n, classes), (n, p) or (n, L, p).
            y: (n,) labels, or targets of the shape of outputs.
            lengths: (n,) true lengths, or None; steps beyond them are left out.
            center: (p,) mean of the targets (`target_mean`), used by fit.
            xp: numpy, or jax.numpy inside a traced function.

        Returns:
            (n, blocks, 1) 0 or 1 for accuracy, where one output is the logit of class 1; (n, 1, 2) that logit (of two
            outputs their difference) and the label for `ranked`; (n, blocks, 4) Σ|e|, Σe², Σ(y - center)² and the
            number of terms.
        """
        if self.classifies and self.sequence:
            return self._of_steps(outputs, y, lengths, xp)
        if self.ranked:
            logit = outputs[:, -1] - outputs[:, 0] if outputs.shape[-1] > 1 else outputs[:, 0]
            return xp.stack([logit, y.astype(logit.dtype)], -1)[:, None, :]
        if self.name == "accuracy" and outputs.shape[-1] == 1:
            right = ((outputs[:, 0] > 0) == (y > 0)) & ~xp.isnan(outputs[:, 0])
            return right[:, None, None].astype(outputs.dtype)
        if self.name == "accuracy":
            # argmax of a row with NaN is the position of the NaN, which could be the right class by chance
            right = (outputs.argmax(-1) == y) & ~xp.isnan(outputs).any(-1)
            return right[:, None, None].astype(outputs.dtype)
        error, spread = outputs - y, y - xp.broadcast_to(center, y.shape)
        terms = [abs(error), error * error, spread * spread, xp.ones_like(error)]
        sums = [term.sum(-1) for term in terms]
        if not self.sequence:
            return xp.stack(sums, -1)[:, None, :]
        steps = outputs.shape[1]
        kept = self.counted(steps, lengths)
        block = np.eye(self.blocks, dtype=outputs.dtype)[_block_of(steps, self.warmup, self.blocks)]
        # `where`, not a product: a value that is infinite in a step left out must not become NaN
        return xp.stack([xp.where(kept, term, 0) @ block for term in sums], -1)

    def _of_steps(self, outputs: Any, y: Any, lengths: Any, xp: Any) -> Any:
        """(n, 1, 3): right answers, Σ -log p(label) and the number of scored steps."""
        scored = self.counted(outputs.shape[1], lengths) & (y != IGNORED)
        label = xp.where(scored, y, 0)[..., None]
        largest = outputs.max(-1, keepdims=True)
        # the largest may be infinite, and then nothing is a number; `finite` says so
        normaliser = xp.log(xp.exp(outputs - largest).sum(-1)) + largest[..., 0]
        nll = normaliser - xp.take_along_axis(outputs, label, -1)[..., 0]
        right = (outputs.argmax(-1) == label[..., 0]) & ~xp.isnan(outputs).any(-1)
        zero = xp.zeros_like(nll)
        terms = (right.astype(outputs.dtype), nll, xp.ones_like(nll))
        return xp.stack([xp.where(scored, term, zero).sum(-1) for term in terms], -1)[:, None]

    def counted(self, steps: int, lengths: Any = None) -> Any:
        """(1 or n, steps) bool: the outputs over time that count, behind the warm-up and within the lengths."""
        kept = (np.arange(steps) >= self.warmup)[None, :]
        return kept if lengths is None else kept & (np.arange(steps)[None, :] < lengths[:, None] // self.step)

    def finite(self, outputs: Any, lengths: Any = None, xp: Any = np) -> Any:
        """(n,) bool: whether every output that counts is a finite number; arguments as `statistics`.

        A class may have the log-probability -inf, as long as another one is possible.
        """
        if not self.sequence and (self.ranked or (self.name == "accuracy" and outputs.shape[-1] == 1)):
            return xp.isfinite(outputs).all(-1)
        if self.classifies:
            fine = ~(xp.isnan(outputs) | (outputs == np.inf)).any(-1) & (outputs > -np.inf).any(-1)
            return (fine | ~self.counted(outputs.shape[1], lengths)).all(-1) if self.sequence else fine
        fine = xp.isfinite(outputs).all(-1)
        return (fine | ~self.counted(outputs.shape[1], lengths)).all(-1) if self.sequence else fine

    def value(self, statistics: np.ndarray) -> float:
        """The metric of the given examples; (..., units, S) statistics, units may be any selection."""
        if self.ranked:
            return float(ranked_value(self.name, np.asarray(statistics, np.float64)))
        return float(self.from_sums(np.asarray(statistics, np.float64).sum(-2), statistics.shape[-2]))

    def resampled(self, statistics: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """(RESAMPLES,) values of (units, S) statistics over units drawn with replacement; one seed, the same draws."""
        if self.ranked:
            return resampled_values(self.name, np.asarray(statistics, np.float64), resamples=RESAMPLES, seed=seed)
        return self.from_sums(bootstrap_sums(statistics, seed=seed), len(statistics))

    def from_sums(self, sums: np.ndarray, units: int) -> np.ndarray:
        """The metric from (..., S) sums of statistics over `units` units."""
        if self.classifies and self.sequence:
            right, nll, count = np.moveaxis(sums, -1, 0)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                if self.name == "accuracy":
                    return right / count
                return nll / count if self.name == "nll" else np.exp(nll / count)
        if self.name == "accuracy":
            return sums[..., 0] / units
        absolute, squared, spread, count = np.moveaxis(sums, -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.name == "mae":
                return absolute / count
            if self.name == "fit":
                return 100.0 * (1.0 - np.sqrt(squared / spread))
            mean = squared / count
            return np.sqrt(mean) if self.name == "rmse" else mean

    def drop(self, baseline: Any, value: Any) -> Any:
        """What is lost: baseline - value for accuracy and fit (1.0 is 100 points), the relative rise for errors and
        perplexity, and for nll, which is a logarithm, the rise in nats.

        Infinite where the value is NaN: a model whose outputs are not finite has lost everything.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            lost = np.subtract(baseline, value, dtype=np.float64)
            if self.name == "fit":
                lost = lost / 100.0
            elif self.name == "nll":
                lost = -lost
            elif self.name == "perplexity" or not self.classifies:
                lost = np.where(np.equal(value, baseline), 0.0, -lost / np.asarray(baseline, np.float64))
        return np.where(np.isnan(value), np.inf, lost)[()]

    def interval(self, statistics: np.ndarray, *, seed: int = 0) -> tuple[float | None, float | None]:
        """95% interval of the value: Wilson for accuracy, percentile bootstrap for errors (None for one unit)."""
        units = statistics.shape[-2]
        if self.name == "accuracy" and not self.sequence:
            return wilson_interval(float(statistics.sum()), units)
        if units < 2:
            return None, None
        draws = self.resampled(statistics, seed=seed)
        low, high = np.nanquantile(draws, [0.025, 0.975]) if np.isfinite(draws).any() else (np.nan, np.nan)
        return _finite(low), _finite(high)

    def target_mean(self, split: Split) -> np.ndarray:
        """(p,) mean of the kept targets; zeros where the metric does not need it."""
        if self.name != "fit" or split.y is None:
            return np.zeros(1, np.float32)
        y = split.y.astype(np.float64)
        if not self.sequence:
            return y.mean(0).astype(np.float32)
        kept = np.broadcast_to(self.counted(y.shape[1], split.lengths), y.shape[:2])
        return y[kept].mean(0).astype(np.float32)


def choose_metric(name: str | None, forward: Forward, split: Split, *, warmup: int = 0) -> Metric:
    """The metric for a model and a checked split.

    Where no name is given: accuracy for classifiers, perplexity where there is a class at every step, mse for
    regression.

    Raises:
        UsageError: no such metric, or it does not fit the model's task.
        InputError: the warm-up leaves no step.
    """
    classification = forward.task == "classification"
    over_time = "perplexity" if forward.sequence else "accuracy"
    name = name or (over_time if classification else "mse")
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise UsageError(f"There is no metric {name!r}; known: {', '.join(METRICS)}{hint}")
    if classification != Metric(name).classifies or (name in OVER_TIME and not forward.sequence):
        by_class = "perplexity, nll or accuracy" if forward.sequence else "accuracy, auroc, average_precision or f1"
        fitting = by_class if classification else "mse, rmse, mae or fit"
        raise UsageError(f"The metric {name} does not fit a {forward.task} model; use {fitting}.")
    if Metric(name).ranked and forward.outputs > 2:
        raise UsageError(f"The metric {name} is of two classes; the model has {forward.outputs}: use accuracy.")
    if warmup < 0 or (warmup and not forward.sequence):
        raise UsageError("A warm-up is a number of first steps to leave out, for models with an output at every step.")
    if not forward.sequence:
        return Metric(name)
    steps = (split.x.shape[1] if split.lengths is None else int(split.lengths.min())) // forward.output_step
    if warmup >= steps:
        raise InputError(f"{split.name}: a warm-up of {warmup} leaves nothing of sequences with {steps} outputs.")
    if classification:
        return Metric(name, warmup, True, 1, forward.output_step)
    blocks = max(math.isqrt(steps - warmup), 1) if split.n < FEW_SEQUENCES else 1
    return Metric(name, warmup, True, blocks, forward.output_step)


def wilson_interval(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); 95% by default."""
    p = successes / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (0.0 if successes <= 0 else max(center - half, 0.0), 1.0 if successes >= n else min(center + half, 1.0))


def bootstrap_sums(statistics: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(resamples, S) sums over units drawn with replacement from (units, S); one seed draws the same units always.

    That is what pairs two models: their resamples contain the same examples.
    """
    statistics = np.asarray(statistics, np.float64)
    units = statistics.shape[0]
    generator = np.random.default_rng(seed)
    rows = max(min(resamples, (1 << 22) // units), 1)
    sums = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = generator.integers(0, units, (count, units)) + np.arange(count)[:, None] * units
        times = np.bincount(drawn.reshape(-1), minlength=count * units).reshape(count, units)
        with np.errstate(invalid="ignore"):  # a unit that is infinite leaves no resample a number, not even one without
            sums.append(times @ statistics)
    return np.concatenate(sums)


def _block_of(steps: int, warmup: int, blocks: int) -> np.ndarray:
    position = np.maximum(np.arange(steps) - warmup, 0)
    return np.minimum(position * blocks // max(steps - warmup, 1), blocks - 1)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
