"""`LayerCertificate`: what is known of the error of one reduced layer."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LayerCertificate"]


@dataclass(frozen=True, kw_only=True)
class LayerCertificate:
    """Certificates of one layer as it is stored; None where not computed.

    Attributes:
        hinf_error_bound: bound on the H∞ error that is known before the error is.
        hinf_error: H∞ norm of the error; infinite (null in JSON) where it is not bounded. `hinf_exact`: whether that is
            proved to be the norm; otherwise it is a lower bound.
        h2_error: H2 error relative to the layer without its D.
        dc_error: error of the response to constant inputs, relative.
        data_error: error of the output on the calibration inputs, relative as h2_error; of the layer by itself, as if
            all others were the original's.
    """

    name: str
    states_before: int
    states_after: int
    hinf_error_bound: float | None = None
    hinf_error: float | None = None
    h2_error: float | None = None
    hinf_exact: bool | None = None
    dc_error: float | None = None
    data_error: float | None = None
