"""Result of `eval`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lastcli.results.base import OfModel
from lastcli.results.gates import Gate

__all__ = ["EvalResult"]


@dataclass(frozen=True, kw_only=True)
class EvalResult(OfModel):
    """A metric on a split. `passed` is the answer of the gate `--fail-under`, None where there was none."""

    command: ClassVar[str] = "eval"

    metric: str
    value: float
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    higher_is_better: bool = True
    data: str | None = None
    warmup: int = 0
    threshold: float | None = None
    fail_under: float | None = None
    passed: bool | None = None
    gates: tuple[Gate, ...] = ()
    notes: tuple[str, ...] = ()
