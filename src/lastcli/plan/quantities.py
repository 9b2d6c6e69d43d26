"""The texts that name an amount: a time to spend, a share of the data to calibrate on."""

from __future__ import annotations

import math
import re

from lastcli.errors import UsageError

__all__ = ["SPLIT", "divides", "parse_duration", "parse_share"]

SPLIT = "split:"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `5m` or `1.5h`.

    Raises:
        UsageError: not such a time, or none at all.
    """
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([smh])\s*", text.lower())
    seconds = 0.0 if match is None else float(match[1]) * _UNITS[match[2]]
    if seconds <= 0:
        raise UsageError(f"--budget {text[:60]!r} is not a time to spend; write 90s, 5m or 1h.")
    return seconds


def divides(calibration: str | None) -> bool:
    """Whether `--calibration` is no file but a share of `--data`; a file of that name is `./split:...`."""
    return calibration is not None and calibration.startswith(SPLIT)


def parse_share(text: str) -> float:
    """The share that `split:0.5` gives to the calibration.

    Raises:
        UsageError: not a number between 0 and 1.
    """
    try:
        share = float(text.removeprefix(SPLIT))
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise UsageError(
            f"--calibration {text[:60]!r} is not a share of --data; write split:0.5 for half of the examples."
        )
    return share
