"""Certificates of every layer: how far a reduced layer can be, and is, from the original."""

from __future__ import annotations

from collections.abc import Sequence

from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.results import LayerCertificate

__all__ = ["certificates"]


def certificates(
    names: Sequence[str], systems: Sequence[DiagonalSystem], reductions: Sequence[Reduction]
) -> tuple[LayerCertificate, ...]:
    """A-priori H∞ bound (plain truncation only), exact H∞ error and relative H2 error of each layer."""
    from lastcli.engine.certificates import certify

    found = []
    for name, system, reduction in zip(names, systems, reductions):
        certificate = certify(system, reduction)
        found.append(
            LayerCertificate(
                name=name,
                states_before=system.states,
                states_after=reduction.system.states,
                hinf_error_bound=certificate.hinf_error_bound,
                hinf_error=certificate.hinf_error,
                h2_error=certificate.h2_error,
            )
        )
    return tuple(found)
