"""Pruning ratios in exact decimal arithmetic: 1 - 0.55 is 0.45, not 0.44999999999999996."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from lastcli.errors import UsageError

__all__ = ["parse_ratio", "parse_ratios"]

_GRID_LIMIT = 1001
_MOST_DIGITS = 50


def parse_ratio(value: str | float | int | Decimal) -> Decimal:
    """A ratio in 0..1; `33%` is 0.33.

    Raises:
        UsageError: not a number, or outside 0..1.
    """
    text = str(value).strip()
    try:
        number = Decimal(text[:-1]) / 100 if text.endswith("%") else Decimal(text)
    except ArithmeticError:
        raise UsageError(f"The ratio {text[:60]!r} is not a number; write 0.33 or 33%.") from None
    if not number.is_finite() or not 0 <= number <= 1:
        raise UsageError(
            f"The ratio {text[:60]} is outside 0..1; it is the share of states to remove, such as 0.33 or 33%."
        )
    if int(number.as_tuple().exponent) < -_MOST_DIGITS:
        raise UsageError(f"The ratio {text[:60]} has more than {_MOST_DIGITS} digits after the point; write fewer.")
    return number


def parse_ratios(value: str | float | Decimal | Iterable[str | float | Decimal]) -> tuple[Decimal, ...]:
    """Ratios from `a:b:step` (both ends included), `0,0.33,60%`, or a sequence; ascending, without repeats.

    Raises:
        UsageError: not readable, outside 0..1, a step that is not positive, or more than 1001 ratios.
    """
    if isinstance(value, (int, float, Decimal)):
        value = str(value)
    if not isinstance(value, str):
        return tuple(sorted({parse_ratio(item) for item in value}))
    if ":" not in value:
        items = [item for item in value.split(",") if item.strip()]
        if not items:
            raise UsageError("No ratio was given; write 0:0.8:0.1 or 0,0.33,0.6.")
        return tuple(sorted({parse_ratio(item) for item in items}))
    parts = value.split(":")
    if len(parts) != 3:
        raise UsageError(f"The ratios {value!r} are not of the form start:end:step, such as 0:0.8:0.1.")
    first, last, step = (parse_ratio(part) for part in parts)
    if step <= 0 or last < first:
        raise UsageError(f"The ratios {value!r} need a step above 0 and an end not below the start.")
    if (last - first) / step > _GRID_LIMIT:
        raise UsageError(f"The ratios {value!r} are more than {_GRID_LIMIT}; take a larger step.")
    grid = [first]
    while grid[-1] + step <= last:
        grid.append(grid[-1] + step)
    if grid[-1] != last:
        grid.append(last)
    return tuple(grid)
