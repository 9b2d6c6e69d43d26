"""Metrics as sums of per-example statistics, so that no metric ever needs all outputs at once.

Each metric reduces the outputs of one example to a few numbers ("statistics"); its value is a function of their sums
over the split. The same statistics give the interval (Wilson for accuracy, bootstrap for errors) and the paired
comparison of two models in `significance`. `Metric.statistics` works on NumPy and JAX arrays alike and is traceable.
Which metric fits which model is the question of `choice`; what a classifier answers is that of `answers`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lastcli.evaluation.answers import IGNORED, Answers, f1_value
from lastcli.evaluation.data import Split
from lastcli.evaluation.ranking import pooled_value, resampled_values

__all__ = ["IGNORED", "METRICS", "SHARES", "Metric", "bootstrap_sums", "wilson_interval"]

_F1 = ("f1", "f1_micro", "f1_macro")
_RANKED = tuple(f"{kind}{average}" for kind in ("auroc", "average_precision") for average in ("", "_micro", "_macro"))
_ACCURACIES = ("accuracy", "subset_accuracy", "element_accuracy")
# Those that are shares, so that what is lost is a difference of them.
SHARES = (*_ACCURACIES, *_RANKED, *_F1)
LOGARITHMS = ("nll", "perplexity")
ERRORS = ("mse", "rmse", "mae", "fit")
METRICS = (*SHARES, *LOGARITHMS, *ERRORS)
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
        name: of classifiers accuracy; nll, the mean of -log p(label) in nats, and perplexity, exp(nll); f1_micro and
            f1_macro; of two classes also f1, auroc and average_precision of class 1. Of independent labels
            subset_accuracy (all labels of an example are right), element_accuracy (the share of right labels), nll (the
            mean over labels), and f1, auroc and average_precision each as _micro and _macro. Of models with a class, or
            labels, at every step all of these run over the scored steps; a label of -100 is not scored.
            Of regressions mse, rmse, mae over all kept steps and outputs; fit = 100·(1 - ‖y - ŷ‖/‖y - mean(y)‖), the
            fit index of system identification (Ljung, System Identification, 2nd ed., section 17), in percent. Of
            several outputs the sums run over all of them (`pooled`): one root and one quotient, not the mean over
            outputs.
        warmup: first outputs of each sequence that are left out, for outputs with a time axis.
        sequence: whether outputs have a time axis.
        blocks: time blocks an example is cut into; 1 except for few long sequences.
        step: steps of the input from one output to the next (`Forward.output_step`).
        labels: k of a model with k independent labels, 0 of every other.
        threshold: the probability above which the answer is class 1 of two, or a label; None: 0.5.
        given: whether the value is computed by the user's own function; the statistics are that number then.
    """

    name: str
    warmup: int = 0
    sequence: bool = False
    blocks: int = 1
    step: int = 1
    labels: int = 0
    threshold: float | None = None
    given: bool = False

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is a better model."""
        return self.name == "fit" or self.share

    @property
    def share(self) -> bool:
        """Whether it is a fraction, shown in percent, of which what is lost is a difference."""
        return self.name in SHARES

    @property
    def classifies(self) -> bool:
        """Whether it is one of a classifier."""
        return self.share or self.name in LOGARITHMS

    @property
    def ranked(self) -> bool:
        """Whether it is of the scores of all examples together: no sum over examples (`ranking`)."""
        return self.name in _RANKED

    @property
    def counts(self) -> bool:
        """Whether it is a function of how often each class or label is right, answered and true."""
        return self.name in _F1

    @property
    def decides(self) -> bool:
        """Whether it depends on the threshold."""
        return self.name in _ACCURACIES or self.counts

    @property
    def by_example(self) -> bool:
        """Whether an example is right or wrong as a whole: a proportion."""
        return self.name in ("accuracy", "subset_accuracy") and not self.sequence and not self.given

    @property
    def pooled(self) -> bool:
        """Whether the value over several outputs together is another number than the mean of their own values."""
        return self.name in ("rmse", "fit")

    def statistics(self, outputs: Any, y: Any, lengths: Any = None, center: Any = _ZERO, xp: Any = np) -> Any:
        """Per-example statistics of a batch.

        Args:
            outputs: (n, classes), (n, p) or (n, L, p); (n, L, m, classes) of m classes a step.
            y: labels (n,), (n, L) or (n, L, m), independent ones (n, k) or (n, L, k); or targets of the shape of
                outputs.
            lengths: (n,) true lengths, or None; steps beyond them are left out.
            center: (p,) mean of the targets (`target_mean`), used by fit.
            xp: numpy, or jax.numpy inside a traced function.

        Returns:
            (n, blocks, S). Of classifiers blocks is 1, and S as `Answers` says: 1 where an example is right or wrong,
            `totals`, `counts` or `ranked`. Else Σ|e|, Σe², Σ(y - center)² and the number of terms.
        """
        if self.classifies:
            return self._of_answers(outputs, y, lengths, xp)[:, None]
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

    def _of_answers(self, outputs: Any, y: Any, lengths: Any, xp: Any) -> Any:
        """(n, S)."""
        kept = self.counted(outputs.shape[1], lengths) if self.sequence else np.ones((1, 1), bool)
        if not self.sequence:
            outputs, y = outputs[:, None], y[:, None]
        elif outputs.ndim == 4:  # several classes a step are so many steps
            n, steps, several, classes = outputs.shape
            kept = xp.broadcast_to(kept[..., None], (*kept.shape, several)).reshape(len(kept), -1)
            outputs, y = outputs.reshape(n, steps * several, classes), y.reshape(n, -1)
        answers = Answers(outputs, y, kept, independent=self.labels > 0, threshold=self.threshold, xp=xp)
        if self.ranked:
            return answers.ranked()
        if self.counts:
            return answers.counts(positive=self.name == "f1")
        if not self.by_example:
            return answers.totals(subset=self.name == "subset_accuracy")
        right = answers.right().reshape(len(outputs), -1)
        return right.all(-1, keepdims=True).astype(outputs.dtype)

    def counted(self, steps: int, lengths: Any = None) -> Any:
        """(1 or n, steps) bool: the outputs over time that count, behind the warm-up and within the lengths."""
        kept = (np.arange(steps) >= self.warmup)[None, :]
        return kept if lengths is None else kept & (np.arange(steps)[None, :] < lengths[:, None] // self.step)

    def finite(self, outputs: Any, lengths: Any = None, xp: Any = np) -> Any:
        """(n,) bool: whether every output that counts is a finite number; arguments as `statistics`.

        A class may have the log-probability -inf, as long as another one is possible.
        """
        if not self.classifies or self.labels or outputs.shape[-1] == 1 or self.ranked:
            fine = xp.isfinite(outputs).all(-1)
        else:
            fine = ~(xp.isnan(outputs) | (outputs == np.inf)).any(-1) & (outputs > -np.inf).any(-1)
        if not self.sequence:
            return fine
        fine = fine.all(-1) if fine.ndim == 3 else fine
        return (fine | ~self.counted(outputs.shape[1], lengths)).all(-1)

    def value(self, statistics: np.ndarray) -> float:
        """The metric of the given examples; (units, S) statistics, units may be any selection."""
        statistics = np.asarray(statistics, np.float64)
        if self.given:
            return float(statistics[0, 0])
        if self.ranked:
            return float(pooled_value(self.name, statistics, self.labels or 1))
        return float(self.from_sums(statistics.sum(-2), statistics.shape[-2]))

    def resampled(self, statistics: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """(R,) values of (units, S) statistics over units drawn with replacement; one seed, the same draws.

        R is `RESAMPLES`; fewer for ranked metrics of very many scores.
        """
        if self.ranked:
            labels, statistics = self.labels or 1, np.asarray(statistics, np.float64)
            return resampled_values(self.name, statistics, resamples=RESAMPLES, seed=seed, labels=labels)
        return self.from_sums(bootstrap_sums(statistics, seed=seed), len(statistics))

    def losses(self, statistics: np.ndarray) -> np.ndarray:
        """(units,): how far each unit is from right, to count which of two models is nearer to it."""
        statistics = np.asarray(statistics, np.float64)
        if self.by_example or self.given:
            return -statistics[:, 0] if self.higher_is_better else statistics[:, 0]
        if self.ranked:  # how far the scores are on the right side
            scores = statistics.reshape(len(statistics), -1, 2)
            return -np.nansum((2 * scores[..., 1] - 1) * scores[..., 0], axis=1)
        if self.counts:
            right, called, true = statistics.reshape(len(statistics), -1, 3).sum(1).T
            return called + true - 2 * right
        return statistics[:, 1]

    def from_sums(self, sums: np.ndarray, units: int) -> np.ndarray:
        """The metric from (..., S) sums of statistics over `units` units."""
        if self.by_example:
            return sums[..., 0] / units
        if self.counts:
            return f1_value(self.name, sums, independent=self.labels > 0)
        if self.classifies:
            right, nll, count = np.moveaxis(sums, -1, 0)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                if self.name not in LOGARITHMS:
                    return right / count
                return nll / count if self.name == "nll" else np.exp(nll / count)
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
            elif not self.share:
                lost = np.where(np.equal(value, baseline), 0.0, -lost / np.asarray(baseline, np.float64))
        return np.where(np.isnan(value), np.inf, lost)[()]

    def interval(self, statistics: np.ndarray, *, seed: int = 0) -> tuple[float | None, float | None]:
        """95% interval of the value: Wilson for a proportion of examples, else percentile bootstrap.

        The bootstrap draws units: examples, or whole sequences; None for one unit.
        """
        units = statistics.shape[-2]
        if self.by_example:
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
