"""`Gate`: a demand on a model, and whether it was met."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Gate"]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One demand.

    Attributes:
        kind: "fail_over" (the drop of a row), "fail_under" (the metric of a row or of a model), "max_drop" (that a
            ratio stays within it) or "baseline" (that the full model beats an answer that looks at no input).
        limit, found: what was allowed and what it is; None where no number says it. `said`: then a sentence.
        method, refit, ratio: of the row; None where it is about no row.
    """

    kind: str
    ok: bool
    limit: float | None = None
    found: float | None = None
    method: str | None = None
    refit: str | None = None
    ratio: float | None = None
    said: str = ""
