"""`Published`: the numbers of a paper that a recipe carries, to stand beside the measured ones.

In a recipe::

    published:
      source: AIRE-Prune, arXiv 2602.00534, table 1
      metric: accuracy            # the default
      full: 0.8888                # the model before pruning
      methods:
        last: {0.6: 0.8852}       # ratio: value
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from lastcli.errors import LastError, UsageError
from lastcli.mappings import convert, suggestion
from lastcli.plan.methods import METHODS
from lastcli.plan.ratios import parse_ratio

__all__ = ["Published", "PublishedValue", "parse_published"]

_KEYS = ("source", "metric", "full", "methods")


class PublishedValue(NamedTuple):
    """The metric that a paper gives for a method, without a refit, at a ratio."""

    method: str
    ratio: Decimal
    value: float


@dataclass(frozen=True)
class Published:
    """Numbers of a paper in the unit of `last`: an accuracy is a fraction.

    Attributes:
        source: where they are printed.
        metric: what they are values of.
        full: of the model before pruning; None where it is not given.
        values: by method, then by ratio, in the order of the recipe.
    """

    source: str
    metric: str = "accuracy"
    full: float | None = None
    values: tuple[PublishedValue, ...] = ()

    def document(self) -> dict[str, Any]:
        """As a recipe says it."""
        methods: dict[str, dict[float, float]] = {}
        for one in self.values:
            methods.setdefault(one.method, {})[float(one.ratio)] = one.value
        said = {"source": self.source, "metric": self.metric, "full": self.full, "methods": methods}
        return {key: value for key, value in said.items() if value not in (None, {})}


def parse_published(raw: Any, what: str, wrong: type[LastError]) -> Published:
    """The block `published` of a recipe.

    Raises:
        LastError: of the class `wrong`: an unknown key or method, no source, or what is no ratio or number.
    """
    if isinstance(raw, Published):
        return raw
    said = _mapping(raw, what, wrong)
    for key in said:
        if key not in _KEYS:
            raise wrong(f"{what}: unknown key {key!r}.{suggestion(key, _KEYS)}")
    if not said.get("source"):
        raise wrong(f"{what}: say in `source` where the numbers are printed.")
    metric = convert(said.get("metric") or "accuracy", str, f"{what}: metric", wrong)
    full = said.get("full")
    values = []
    for method, row in _mapping(said.get("methods") or {}, f"{what}: methods", wrong).items():
        if method not in METHODS:
            raise wrong(f"{what}: there is no method {method!r}.{suggestion(method, METHODS)}")
        for ratio, value in _mapping(row, f"{what}: {method}", wrong).items():
            where = f"{what}: {method} at {ratio}"
            values.append(PublishedValue(method, _ratio(ratio, where, wrong), _number(value, metric, where, wrong)))
    if full is None and not values:
        raise wrong(f"{what}: holds no number; give `full`, or `methods` with their ratios and values.")
    return Published(
        convert(said["source"], str, f"{what}: source", wrong),
        metric,
        None if full is None else _number(full, metric, f"{what}: full", wrong),
        tuple(values),
    )


def _mapping(raw: Any, what: str, wrong: type[LastError]) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise wrong(f"{what} must be a mapping of key: value, not {raw!r}.")
    return {str(key): value for key, value in raw.items()}


def _ratio(raw: str, what: str, wrong: type[LastError]) -> Decimal:
    try:
        return parse_ratio(raw)
    except UsageError as error:
        raise wrong(f"{what}: {error}") from None


def _number(raw: Any, metric: str, what: str, wrong: type[LastError]) -> float:
    value = float(convert(raw, float, what, wrong))
    if metric == "accuracy" and not 0 <= value <= 1:
        raise wrong(f"{what}: an accuracy is a fraction of 1, such as 0.8852, not {raw}.")
    return value
