"""A model whose second layer the head hardly hears."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import lastcli
from lastcli.evaluation.data import Split
from lastcli.evaluation.fitting import fit_split
from lastcli.model.checkpoint import Checkpoint
from tests.conftest import write_s5

__all__ = ["muffled_model"]


def muffled_model(path: Path) -> tuple[Checkpoint, Split]:
    """The model, written at `path` and opened, and calibration inputs for it."""

    def muffle(arrays):
        for name in arrays:
            if "layers_1/seq/C" in name or "layers_1/seq/D" in name:
                arrays[name] *= 1e-2

    model = lastcli.open(write_s5(path, activation="gelu", change=muffle))
    x = np.random.default_rng(1).normal(size=(12, 9, 3)).astype(np.float32)
    return model, fit_split(Split(x), model.require_forward(), labels=False)
