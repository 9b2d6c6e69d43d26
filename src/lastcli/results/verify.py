"""Results of `verify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lastcli.results.base import Result
from lastcli.results.certificates import LayerCertificate

__all__ = ["Check", "VerifyResult"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of a verification.

    Attributes:
        how: how it is known: "proved" (from the bytes of both files), "recomputed" (from ORIGINAL, and calibration
            inputs given again), or "trusted" (the file's own record and its sha256); empty where it is not.
    """

    name: str
    ok: bool
    detail: str = ""
    how: str = ""


@dataclass(frozen=True, kw_only=True)
class VerifyResult(Result):
    """Whether PRUNED is ORIGINAL with states removed.

    Attributes:
        max_abs_difference: of the outputs of PRUNED and of ORIGINAL with the same states masked: rounding, if all is
            well.
        max_output_difference, mean_output_difference: of the outputs of PRUNED and of ORIGINAL as it is: what the
            reduction did.
    """

    command: ClassVar[str] = "verify"

    original: str
    pruned: str
    ok: bool
    max_abs_difference: float | None
    checks: tuple[Check, ...]
    layers: tuple[LayerCertificate, ...] = ()
    max_output_difference: float | None = None
    mean_output_difference: float | None = None
    notes: tuple[str, ...] = ()
