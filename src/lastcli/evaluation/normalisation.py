"""From stored inputs to those of the model: (x·scale - mean) / std, declared once by the file, a recipe or flags."""

from __future__ import annotations

from typing import Any

import numpy as np

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.locations import parse_scale

__all__ = ["checked_numbers", "checked_scale", "parse_numbers"]


def parse_numbers(text: str, option: str) -> np.ndarray:
    """One number, or one for each feature: `0.1307` or `0.485,0.456,0.406`; fractions such as 1/255 are read too.

    Raises:
        UsageError: not finite numbers; `option` is named.
    """
    try:
        return np.array([_number(part) for part in text.split(",")], np.float64)
    except UsageError:
        raise UsageError(
            f"{option} {text[:60]!r} is no list of numbers; write one, or one for each feature: 0.485,0.456,0.406."
        ) from None


def _number(text: str) -> float:
    # a scale is not 0, a mean may be
    return 0.0 if text.strip().strip("-+").rstrip("0").rstrip(".") == "" and "0" in text else parse_scale(text.strip())


def checked_scale(value: Any, what: str) -> float:
    """A factor.

    Raises:
        InputError: not one finite number, or 0.
    """
    array = np.asarray(value)
    if array.shape not in ((), (1,)):
        raise InputError(f"{what} has shape {array.shape}; one number is needed.")
    scale = float(array.reshape(()))
    if not np.isfinite(scale) or scale == 0:
        raise InputError(f"{what} is {scale}; a finite number other than 0 is needed, for example 1/255.")
    return scale


def checked_numbers(value: Any, what: str, divides: bool = False) -> np.ndarray:
    """Means or deviations, (1,) or (F,).

    Args:
        value: as read.
        what: for messages.
        divides: whether 0 is refused.

    Raises:
        InputError: not finite, or not one number for each feature.
    """
    array = np.asarray(value)
    if array.ndim > 1 or array.size == 0 or array.dtype.kind not in "iuf":
        raise InputError(f"{what} has shape {array.shape}; one number, or one for each feature, is needed.")
    numbers = array.astype(np.float64).reshape(-1)
    if not np.isfinite(numbers).all() or (divides and (numbers <= 0).any()):
        raise InputError(
            f"{what} holds {numbers.tolist()[:8]}; {'positive' if divides else 'finite'} numbers are needed."
        )
    return numbers
