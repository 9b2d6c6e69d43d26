"""equinox files without equinox: the leaves of a module in order, as `tree_serialise_leaves` writes them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["eqx_bytes", "s5_module"]


def eqx_bytes(leaves: Iterable[Any], header: str | None = None) -> bytes:
    """The file: a line of text, where there is one, then every leaf as `numpy.save` does it."""
    file = io.BytesIO()
    if header is not None:
        file.write(header.encode() + b"\n")
    for leaf in leaves:
        np.save(file, leaf)
    return file.getvalue()


def s5_module(rng: np.random.Generator, *, states: int = 6, width: int = 4, layers: int = 2) -> dict[str, Any]:
    """A module as nested dictionaries with sorted keys: an encoder, S5 layers, a decoder."""

    def layer() -> dict[str, Any]:
        return {
            "ssm": {
                "A_re": -rng.uniform(0.2, 1.5, states).astype("f4"),
                "B_im": rng.uniform(0, 12, states).astype("f4"),
                "C": rng.normal(size=(states, width, 2)).astype("f4"),
                "D": rng.normal(size=(width, states, 2)).astype("f4"),
                "E": rng.normal(size=width).astype("f4"),
                "F": rng.uniform(-3, -1, (states, 1)).astype("f4"),
                "G_H": width,
                "H_P": states,
                "conj": True,
                "rescale": 1.0,
            }
        }

    return {
        "a_encoder": {"weight": rng.normal(size=(width, 3)).astype("f4")},
        "blocks": [layer() for _ in range(layers)],
        "z_decoder": {"weight": rng.normal(size=(2, width)).astype("f4"), "note": rng.normal(size=()).astype("f4")},
    }
