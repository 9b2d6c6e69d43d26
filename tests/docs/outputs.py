"""What `last` computes with a file, and which states a file says that it kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import lastcli


def describe(name: str, **description: Any) -> None:
    """A description beside the checkpoint."""
    Path(name).with_suffix(".json").write_text(json.dumps(description))


def kept(path: str) -> dict[str, np.ndarray]:
    """{layer: the states that stayed (sets, K)} as the file itself says."""
    return {layer["name"]: np.atleast_2d(layer["kept"]) for layer in lastcli.open(path).provenance["layers"]}


def alive(stayed: np.ndarray, states: int) -> np.ndarray:
    """(sets, N): whether a state is one of those that stayed."""
    mask = np.zeros((len(stayed), states), bool)
    np.put_along_axis(mask, stayed, True, axis=1)
    return mask


def outputs(path: str, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Outputs of the family's own forward pass over the file."""
    import jax

    from lastcli.engine import pytrees  # noqa: F401 (lets systems be arguments of compiled functions)
    from tests.families.rebuilding import single

    model = lastcli.open(path)
    systems = [single(system) for system in model.systems]
    return np.asarray(jax.jit(model.require_forward().apply)(model.params, systems, x, lengths)[0])


def same(ours: Any, theirs: Any) -> None:
    """Equal to what single precision holds of the largest output."""
    ours, theirs = (np.asarray(a.detach() if hasattr(a, "detach") else a) for a in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * max(1, np.abs(theirs).max()))
