"""Data that a tiny model answers rightly, so that there is something to lose."""

from __future__ import annotations

import numpy as np
import pytest

import lastcli
from lastcli.evaluation.data import open_split
from lastcli.evaluation.passes import model_outputs


@pytest.fixture
def answered(tiny, tmp_path):
    """A split whose labels are what `tiny` says, both classes equally often: the model is right always."""
    x = np.random.default_rng(5).normal(size=(4000, 9, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    with lastcli.open(tiny) as model:
        batches = model_outputs(model.require_forward(), model.params, model.systems, open_split(tmp_path / "x.npz"))
        y = np.concatenate(list(batches)).argmax(1)
    some = np.sort(np.concatenate([np.flatnonzero(y == label)[:50] for label in (0, 1)]))
    assert len(some) == 100
    np.savez(tmp_path / "answered.npz", x=x[some], y=y[some])
    return tmp_path / "answered.npz"
