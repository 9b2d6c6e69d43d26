"""Result of `convert`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lastcli.results.base import Result

__all__ = ["ConvertResult"]


@dataclass(frozen=True, kw_only=True)
class ConvertResult(Result):
    """One checkpoint in another container. `family_after` differs from `family` where the form was changed."""

    command: ClassVar[str] = "convert"

    checkpoint: str
    out: str
    container_before: str
    container_after: str
    tensors: int
    bytes_before: int
    bytes_after: int
    family: str | None = None
    family_after: str | None = None
    notes: tuple[str, ...] = ()
