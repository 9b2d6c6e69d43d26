"""From the rows of many sweeps to the numbers of the table: means, spreads, ratios within a point.

A record is one row of one sweep with its task and seed. Values are fractions: accuracies, or the fit index / 100 for
regressions, so that a drop of 0.01 is one point everywhere.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["DRAWN", "POINT", "TRAINING", "Column", "Curve", "Record", "Summary", "curves", "ratio_within", "summaries"]

POINT = 0.01
# Ratios are read from decimal text; drops are differences of fractions, so a whole point must not fail by rounding.
SLACK = 1e-9
# The part whose inputs a refit is given where it is not the calibration part; its labels are not looked at.
TRAINING = "train"
# Inputs that nobody recorded: noise of the training part's length, mean and standard deviation.
DRAWN = "drawn"


@dataclass(frozen=True, order=True)
class Column:
    """How a model was made smaller, whatever the ratio.

    Attributes:
        steps: stages of one pruning.
        inputs: part of the data whose inputs the refit was given.
    """

    method: str
    refit: str
    steps: int = 1
    inputs: str = "calibration"

    @property
    def label(self) -> str:
        """As shown: `obs + match, 4 steps, training inputs`; the method alone where the read-out stays."""
        words = [self.method if self.refit == "none" else f"{self.method} + {self.refit}"]
        words += [f"{self.steps} steps"] if self.steps > 1 else []
        words += {TRAINING: ["training inputs"], DRAWN: ["drawn inputs"]}.get(self.inputs, [])
        return ", ".join(words)


@dataclass(frozen=True)
class Record:
    """One ratio of one method, refit, task and seed; `steps` and `inputs` as in `Column`."""

    task: str
    seed: int
    method: str
    refit: str
    ratio: float
    value: float
    drop: float
    states: int
    parameters: int | None = None
    steps: int = 1
    inputs: str = "calibration"

    @property
    def column(self) -> Column:
        """What it is a row of."""
        return Column(self.method, self.refit, self.steps, self.inputs)


@dataclass(frozen=True)
class Curve:
    """Mean and spread over the seeds, ratio by ratio.

    Attributes:
        values, drops: means over the seeds.
        spreads: sample standard deviation of the values (0 for one seed).
        seeds: how many seeds there are.
    """

    task: str
    column: Column
    ratios: tuple[float, ...]
    values: tuple[float, ...]
    spreads: tuple[float, ...]
    drops: tuple[float, ...]
    seeds: int

    def drop_at(self, ratio: float) -> float | None:
        """The mean drop at a ratio, None where it was not measured."""
        for known, drop in zip(self.ratios, self.drops):
            if abs(known - ratio) < 1e-6:
                return drop
        return None


@dataclass(frozen=True)
class Summary:
    """One method over all tasks.

    Attributes:
        own_ratio, own_loss: mean over tasks of the method's own largest ratio within a point, and the loss there.
        loss_at_last: mean loss at the ratios that LAST chose, the papers' way to compare; None where this method
            has not been measured at all of them.
        mean_drops: mean drop over the tasks, ratio by ratio.
        within: largest ratio at which the mean drop over the tasks is within a point.
    """

    column: Column
    tasks: int
    own_ratio: float
    own_loss: float
    loss_at_last: float | None
    ratios: tuple[float, ...]
    mean_drops: tuple[float, ...]
    within: float


def curves(records: Iterable[Record]) -> list[Curve]:
    """One curve for each task and column, in the order they first come."""
    grouped: dict[tuple[str, Column], dict[float, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        grouped[record.task, record.column][record.ratio].append(record)
    found = []
    for (task, column), by_ratio in grouped.items():
        ratios = sorted(by_ratio)
        rows = [by_ratio[ratio] for ratio in ratios]
        found.append(
            Curve(
                task=task,
                column=column,
                ratios=tuple(ratios),
                values=tuple(statistics.fmean(row.value for row in at_ratio) for at_ratio in rows),
                spreads=tuple(_spread([row.value for row in at_ratio]) for at_ratio in rows),
                drops=tuple(statistics.fmean(row.drop for row in at_ratio) for at_ratio in rows),
                seeds=len({row.seed for at_ratio in rows for row in at_ratio}),
            )
        )
    return found


def ratio_within(ratios: Sequence[float], drops: Sequence[float], limit: float = POINT) -> float:
    """The largest ratio up to which no drop exceeds the limit; 0 where the first one does.

    A curve that falls and rises again counts only up to its first fall: a lucky ratio is not a working one.
    """
    largest = 0.0
    for ratio, drop in sorted(zip(ratios, drops)):
        if not drop <= limit + SLACK:
            break
        largest = ratio
    return largest


def summaries(found: Sequence[Curve]) -> list[Summary]:
    """Every method over the tasks that it has curves for, in the order of the curves."""
    chosen = {
        curve.task: ratio_within(curve.ratios, curve.drops) for curve in found if curve.column == Column("last", "none")
    }
    by_column: dict[Column, list[Curve]] = defaultdict(list)
    for curve in found:
        by_column[curve.column].append(curve)
    return [_summary(column, own, chosen) for column, own in by_column.items()]


def _summary(column: Column, own: list[Curve], chosen: dict[str, float]) -> Summary:
    ratios = [ratio for ratio in own[0].ratios if all(curve.drop_at(ratio) is not None for curve in own)]
    own_ratios = [ratio_within(curve.ratios, curve.drops) for curve in own]
    own_losses = [(curve.drop_at(ratio) or 0.0) if ratio else 0.0 for curve, ratio in zip(own, own_ratios)]
    at_last = [
        0.0 if chosen[curve.task] == 0 else curve.drop_at(chosen[curve.task]) for curve in own if curve.task in chosen
    ]
    known = [drop for drop in at_last if drop is not None]
    mean_drops = tuple(statistics.fmean(curve.drop_at(ratio) or 0.0 for curve in own) for ratio in ratios)
    return Summary(
        column=column,
        tasks=len(own),
        own_ratio=statistics.fmean(own_ratios),
        own_loss=statistics.fmean(own_losses),
        loss_at_last=statistics.fmean(known) if known and len(known) == len(at_last) else None,
        ratios=tuple(ratios),
        mean_drops=mean_drops,
        within=ratio_within(ratios, mean_drops),
    )


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
