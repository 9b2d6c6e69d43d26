"""`--calibration drawn`: inputs that are drawn, for those who have none of the model's own.

`drawn`, or `drawn:` with what is known of real inputs: `drawn:n=256,length=784,mean=0.13,std=0.31`.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from lastcli.errors import UsageError
from lastcli.mappings import suggestion

__all__ = ["DRAWN", "Drawn", "draws", "parse_drawn"]

DRAWN = "drawn"
SEQUENCES = 256
# Where neither the text nor a split says how long the model's sequences are.
LENGTH = 1024
_EXAMPLE = "write drawn, or drawn:n=256,length=784,mean=0.13,std=0.31 with any of the four"


class Drawn(NamedTuple):
    """Gaussian inputs, every step and feature for itself; of a model of tokens, tokens as likely as one another.

    Attributes:
        n: sequences.
        length: steps of a sequence, None for those of the held-out split.
        mean, std: of what the model is fed, after any normalisation.
    """

    n: int = SEQUENCES
    length: int | None = None
    mean: float = 0.0
    std: float = 1.0


def draws(calibration: str | None) -> bool:
    """Whether `--calibration` is no file but a recipe for inputs; a file of that name is `./drawn`."""
    return calibration is not None and calibration.partition(":")[0] == DRAWN


def parse_drawn(text: str) -> Drawn:
    """What `drawn:n=256,length=784,mean=0.13,std=0.31` asks for; all of it may be left out.

    Raises:
        UsageError: an unknown word, or a number that cannot be.
    """
    _, colon, rest = text.partition(":")
    found: dict[str, float] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in _READ or not equals:
            hint = suggestion(key, list(_READ)) if equals else ""
            raise UsageError(f"--calibration {text[:60]!r}: {part.strip()[:30]!r} says nothing;{hint} {_EXAMPLE}.")
        if key in found:
            raise UsageError(f"--calibration {text[:60]!r} says {key} twice; {_EXAMPLE}.")
        found[key] = _READ[key](value, f"--calibration {text[:60]!r}: {key}={value[:30]}")
    return Drawn(**found)  # type: ignore[arg-type]


def _whole(value: str, what: str) -> int:
    if re.fullmatch(r"[0-9]{1,9}", value) is None or int(value) < 1:
        raise UsageError(f"{what} is not a whole number from 1 on; {_EXAMPLE}.")
    return int(value)


def _number(value: str, what: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{what} is not a number; {_EXAMPLE}.")
    return number


def _spread(value: str, what: str) -> float:
    number = _number(value, what)
    if number <= 0:
        raise UsageError(f"{what} is not above 0; {_EXAMPLE}.")
    return number


_READ = {"n": _whole, "length": _whole, "mean": _number, "std": _spread}
