"""Models that are recognised and refused: what their layers compute is not a diagonal linear time-invariant system.

Dropping an index of such a layer, or ranking its states by norms, would be wrong in a way no check downstream can see.
"""

from __future__ import annotations

from lastcli.families.base import Tensors
from lastcli.families.parts.leaves import canonical

__all__ = ["REFUSED", "refusal"]

# (names that lie together under one layer, what to say); {layer} is the layer's path
REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("alpha_log", "delta_bias"),
        "{layer} is a time-varying LRU: its poles, B and C are computed from the input at every step, so it is not a "
        "linear time-invariant system.",
    ),
    (
        ("nu_log", "theta_log", "X2b"),
        "{layer} is an LRU in the l2-bounded zak form: B and C are computed from all its parameters at once, so a "
        "state cannot be dropped without changing the others.",
    ),
    *(
        (
            names,
            "{layer} is an L2RU: its state matrix is dense and computed from all its parameters at once, so no index "
            "of the tensors is a state of its own.",
        )
        for names in (("X11_params", "X22_params"), ("X11", "X21", "X22"))
    ),
    *(
        (
            names,
            "{layer} is an l2-bounded cell (l2n): its matrices are one normalised contraction, so a state cannot be "
            "dropped without changing the others.",
        )
        for names in (("K12_raw", "K21_raw"), ("K_raw", "S"))
    ),
    (
        ("ab", "h_0"),
        "{layer} is an RTF layer: it stores the coefficients of a rational transfer function, not states, and is not "
        "diagonal.",
    ),
    (
        ("ssm_k_D",),
        "{layer} is an H3 layer: its shift kernel is a delay line, not a diagonal system, and its gates multiply the "
        "signals of both kernels.",
    ),
    (
        ("A_diag", "G_diag"),
        "{layer} is a damped LinOSS layer: its parameters are projected jointly to where they are stable, which is "
        "not supported; LinOSS-IM and LinOSS-IMEX are.",
    ),
)


def refusal(tensors: Tensors) -> str | None:
    """Why this checkpoint cannot be reduced, as one sentence, or None."""
    names = {canonical(name) for name in tensors}
    for together, sentence in REFUSED:
        first, *others = together
        for name in sorted(names):
            if name == first or name.endswith(f"/{first}"):
                base = name.removesuffix(first)
                if all(base + other in names for other in others):
                    return sentence.format(layer=base.rstrip("/") or "This")
    return None
