"""Names as trainers leave them around those of a model."""

from __future__ import annotations

import re

from tests.builders.named import Arrays

PREFIXES = (
    "model.",
    "net.",
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "model._orig_mod.",
    "_forward_module.",
    "_forward_module.model.",
    "model._fsdp_wrapped_module.",
    "ema_model.",
)


def wrapped(arrays: Arrays, prefix: str, *, inside: str = "") -> Arrays:
    """Every name behind `prefix`, and `inside` before its last part but one (before the leaf where there is none)."""
    return {_name(name, prefix, inside): array for name, array in arrays.items()}


def _name(name: str, prefix: str, inside: str) -> str:
    separator = "/" if "/" in name else "."
    parts = [part for part in re.split(r"[/.]", name) if part]
    if inside:
        parts.insert(max(len(parts) - 2, 0), inside)
    return prefix.replace(".", separator) + separator.join(parts)
