"""The weight of a layer against a direct measurement of what the outputs do."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from lastcli.plan import METHODS, REFITS, build_plan
from lastcli.reduction.compressor import Compressor
from lastcli.reduction.divergence import kullback_leibler
from lastcli.reduction.sensitivity import output_change
from tests.reduction.muffled import muffled_model


def test_the_change_of_outputs_is_the_divergence_of_their_probabilities():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 5, 3))
    p, q = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (before, after))
    expected = (p * np.log(p / q)).sum(axis=1).mean()
    found = output_change([(before[:2], after[:2]), (before[2:], after[2:])], "classification")
    assert found == pytest.approx(expected, rel=1e-12)
    assert output_change([(before, after)], "regression") == pytest.approx(((before - after) ** 2).mean())
    assert output_change([(before, before)], "classification") == 0


def test_one_logit_is_that_of_a_class_against_its_contrary():
    z, w = np.array([[0.3], [-2.0]]), np.array([[1.1], [0.5]])
    p, q = (1 / (1 + np.exp(-logit[:, 0])) for logit in (z, w))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    np.testing.assert_allclose(kullback_leibler(z.astype("f4"), w.astype("f4")), expected, rtol=1e-5)


def test_a_layer_that_the_head_hardly_hears_weighs_less(tmp_path):
    model, split = muffled_model(tmp_path / "m.safetensors")
    seen = []
    bar = SimpleNamespace(advance=seen.append)
    compressor = Compressor(model, build_plan({}), split, lambda label, total: nullcontext(bar))
    weights = compressor.sensitivities
    assert seen[-2:] == [1, 1]
    assert weights.max() == 1
    assert weights[1] < 0.1 * weights[0]
    counts = [kept.shape[1] for kept in compressor.kept(METHODS["obs-sensitivity"], REFITS["calibrated"], states=6)]
    plain = [kept.shape[1] for kept in compressor.kept(METHODS["obs"], REFITS["calibrated"], states=6)]
    assert counts[0] > plain[0] or counts == plain
    assert sum(counts) == sum(plain) == 6
