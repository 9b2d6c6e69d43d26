"""The numbers at the top: what a reader looks for first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lastcli.report.html.costs import scope
from lastcli.report.html.markup import Markup, element
from lastcli.report.measures import drop_text, drop_title, interval_text, metric_text
from lastcli.report.sweeps import label_of
from lastcli.report.text import bytes_text, count, name_text, ratio_text, shrinkage
from lastcli.results import Anatomy, Costs, InspectResult, PruneResult, Result, ScoreResult, SweepResult

__all__ = ["summary"]

# title, number, what stands below it
Card = tuple[str, str, str]


def summary(result: Result) -> Markup:
    """A row of cards."""
    cards = [
        element("div", element("dt", title), element("dd", element("b", value), element("span", said)))
        for title, value, said in _CARDS[type(result)](result)
    ]
    return element("dl", *cards, class_="cards")


def _sweep(result: SweepResult) -> Sequence[Card]:
    interval = interval_text(result.metric, *result.baseline_ci, result.n)
    said = f"full model, {count(result.n)} examples" + ("" if interval == "–" else f", 95% interval {interval}")
    cards = [(name_text(result.metric), metric_text(result.metric, result.baseline, result.n), said)]
    row = result.chosen
    if row is None:
        if result.max_drop is not None:
            cards.append(("chosen", "none", "no ratio stays within the accepted loss"))
        return [*cards, ("states", count(result.states), "full model"), *_full(result.anatomy)]
    value = metric_text(result.metric, row.value, result.n)
    lost = f"{drop_title(result.metric)}: {drop_text(result.metric, row.drop, result.n)}"
    cards.append((f"chosen: {label_of((row.method, row.refit))}", value, f"{ratio_text(row.ratio)} pruned, {lost}"))
    cards.append(_change("states", result.states, row.states))
    cards.append(_change("parameters", result.parameters, row.parameters))
    return cards + _changes(result.anatomy)


def _prune(result: PruneResult) -> Sequence[Card]:
    cards = [
        ("method", name_text(result.method), f"refit {name_text(result.refit)}, {ratio_text(result.ratio)} pruned"),
        _change("states", result.states_before, result.states_after),
        _change("parameters", result.parameters_before, result.parameters_after),
        _change("size", result.bytes_before, result.bytes_after, bytes_text),
    ]
    if result.measured is not None:
        found = result.measured
        before, after = (metric_text(found.metric, value, found.n) for value in (found.baseline, found.value))
        cards.insert(0, (name_text(found.metric), after, f"from {before} on {count(found.n)} examples"))
    return cards + [card for card in _changes(result.anatomy) if card[0] != "size"]


def _score(result: ScoreResult) -> Sequence[Card]:
    states = sum(layer.states * layer.sets for layer in result.layers)
    largest = max((layer.max_abs_pole for layer in result.layers), default=0.0)
    return [
        ("method", name_text(result.method), f"{name_text(result.criterion)} × {name_text(result.allocation)}"),
        ("states", count(states), f"{count(len(result.layers))} layers"),
        ("largest |λ|", f"{largest:.6g}", "unstable" if largest >= 1 else "stable"),
        *_full(result.anatomy),
    ]


def _inspect(result: InspectResult) -> Sequence[Card]:
    return [
        ("family", name_text(result.title or result.family), f"{count(len(result.layers))} layers"),
        ("states", count(result.states), "stored states"),
        ("parameters", count(result.parameters), f"{count(result.tensors)} tensors"),
        *_full(result.anatomy),
    ]


def _full(anatomy: Anatomy | None) -> list[Card]:
    return [] if anatomy is None or anatomy.before is None else _costs(anatomy.before, anatomy.before)


def _changes(anatomy: Anatomy | None) -> list[Card]:
    if anatomy is None or anatomy.before is None or anatomy.shown is None or not anatomy.costs:
        return []
    return _costs(anatomy.before, anatomy.costs[anatomy.shown])


def _costs(before: Costs, after: Costs) -> list[Card]:
    cards = [_change("size", before.bytes, after.bytes, bytes_text)]
    if before.state_bytes is not None and after.state_bytes is not None:
        cards.append(_change("state of a sequence", before.state_bytes, after.state_bytes, bytes_text, scope(before)))
    if before.multiply_adds is not None and after.multiply_adds is not None:
        cards.append(
            _change("multiply-adds of a step", before.multiply_adds, after.multiply_adds, count, scope(before))
        )
    return cards


def _change(
    title: str, before: int | None, after: int | None, show: Callable[[Any], str] = count, said: str = ""
) -> Card:
    if before is None or after is None or before == after:
        return title, show(after), said
    change = f"from {show(before)}, {shrinkage(before, after)}"
    return title, show(after), f"{change}; {said}" if said else change


_CARDS: dict[type, Callable[[Any], Sequence[Card]]] = {
    SweepResult: _sweep,
    PruneResult: _prune,
    ScoreResult: _score,
    InspectResult: _inspect,
}
