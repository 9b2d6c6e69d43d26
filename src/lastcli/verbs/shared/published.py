"""The numbers of a paper beside the measured ones, where both are of one metric."""

from __future__ import annotations

import dataclasses

from lastcli.plan import Plan
from lastcli.results import PublishedNumbers, PublishedRow, SweepRow

__all__ = ["other_metric_note", "published_numbers", "with_published"]


def published_numbers(plan: Plan, metric: str) -> PublishedNumbers | None:
    """The plan's published numbers; None where it has none, or none of this metric."""
    said = plan.published
    if said is None or said.metric != metric:
        return None
    rows = tuple(PublishedRow(method=one.method, ratio=float(one.ratio), value=one.value) for one in said.values)
    return PublishedNumbers(source=said.source, metric=said.metric, full=said.full, rows=rows)


def with_published(row: SweepRow, numbers: PublishedNumbers | None) -> SweepRow:
    """The row with what the paper gives for it: papers print methods as they are, without a refit."""
    if numbers is None or row.refit != "none":
        return row
    found = [one.value for one in numbers.rows if (one.method, one.ratio) == (row.method, row.ratio)]
    return dataclasses.replace(row, published=found[0]) if found else row


def other_metric_note(plan: Plan, metric: str) -> str | None:
    """A sentence where the paper's numbers are of another metric, and so are not shown."""
    said = plan.published
    if said is None or said.metric == metric:
        return None
    return f"The published numbers are of {said.metric}, and {metric} was measured; they are not shown beside it."
