"""A refit that matches outputs starts on a sample of the calibration inputs, and matches on all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lastcli.evaluation.data import Split
from lastcli.model.opening import open_checkpoint
from lastcli.plan import METHODS, REFITS, Plan
from lastcli.plan.ratios import parse_ratio
from lastcli.reduction import refits
from lastcli.reduction.compressor import Compressor
from tests.conftest import write_s5

seen: list[refits.Task] = []


def spy(task: refits.Task):
    """A refit that changes nothing and remembers what it was given."""
    seen.append(task)
    return refits.none(task)


def test_the_start_sees_a_sample_spread_evenly_and_the_match_sees_all(tmp_path):
    write_s5(tmp_path / "m.safetensors")
    x = np.random.default_rng(0).normal(size=(9, 7, 3)).astype(np.float32)
    spying = replace(REFITS["match"], run=f"{__name__}:spy", start_sequences=5)
    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        all_of_them, sample = (Compressor(checkpoint, Plan(), Split(inputs)) for inputs in (x, x[[0, 2, 4, 6, 8]]))
        seen.clear()
        found = all_of_them.reduce(METHODS["obs"], spying, ratio=parse_ratio("0.5"))
        task = seen[0]
        assert all_of_them._on_sample(5) is all_of_them._on_sample(5)
        assert task.batches().split.n == 5
        np.testing.assert_array_equal(task.batches().split.x, x[::2])
        assert len(task.lessons().fit) + len(task.lessons().held) == 9
        alone = sample.reduce(METHODS["obs"], REFITS["calibrated"], ratio=parse_ratio("0.5"))
        for one, other in zip(found, alone):
            np.testing.assert_array_equal(one.kept, other.kept)
        for moments, others in zip(task.moments("calibrated"), sample.moments("calibrated")):
            np.testing.assert_array_equal(moments.weight, others.weight)


def test_a_small_split_is_not_thinned():
    split = Split(np.zeros((4, 3, 1), np.float32))
    assert split.thinned(4) is split
    assert split.thinned(9) is split
    assert split.thinned(2).n == 2
