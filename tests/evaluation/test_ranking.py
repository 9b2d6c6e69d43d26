"""AUROC and average precision against scikit-learn, ties and weights included; one-logit models in the verbs."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.evaluation.metrics import Metric
from lastcli.evaluation.ranking import RANKED, ranked_value, resampled_values
from lastcli.evaluation.significance import compare
from tests.builders.s4d import dense, s4d_model

SCORES = {
    "auroc": lambda y, z, w: reference.roc_auc_score(y, z, sample_weight=w),
    "average_precision": lambda y, z, w: reference.average_precision_score(y, z, sample_weight=w),
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", RANKED)
def test_a_metric_is_scikit_learns(name, ties):
    rng = np.random.default_rng(0)
    for _ in range(10):
        y = rng.integers(0, 2, 60)
        z = rng.normal(size=60) + y
        z = np.round(z) if ties else z
        weights = np.stack([np.ones(60), rng.uniform(0, 2, 60), rng.integers(0, 3, 60)])
        wanted = [SCORES[name](y, z, w) for w in weights]
        np.testing.assert_allclose(ranked_value(name, np.stack([z, y], 1), weights), wanted, rtol=1e-12)


@pytest.mark.parametrize("name", RANKED)
def test_a_resample_is_the_metric_of_the_examples_drawn(name):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 30)
    z = np.round(2 * rng.normal(size=30) + y)
    found = resampled_values(name, np.stack([z, y], 1), resamples=5, seed=3)
    rows = np.random.default_rng(3).integers(0, 30, (5, 30))
    np.testing.assert_allclose(found, [SCORES[name](y[row], z[row], None) for row in rows], rtol=1e-12)


@pytest.mark.parametrize("name", RANKED)
def test_two_models_are_compared_on_the_same_draws(name):
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 200)
    good, bad = (np.stack([scale * y - scale / 2 + rng.normal(size=200), y], 1) for scale in (3.0, 0.5))
    metric = Metric(name)
    low, high = metric.interval(good)
    assert low < metric.value(good) < high
    found = compare(metric, good, bad)
    assert found.drop == pytest.approx(metric.value(good) - metric.value(bad))
    assert found.low > 0
    assert found.p_value < 0.01
    assert found.losses > found.wins
    same = compare(metric, good, good)
    assert (same.low, same.high, same.upper, same.p_value) == (0, 0, 0, 1)


@pytest.fixture
def one_logit(tmp_path, monkeypatch):
    """An S4D with one sigmoid logit, and a split that it is right about, mostly."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {**s4d_model(rng), **dense(rng, "decoder", 1, 4)}
    containers.write(tmp_path / "m.safetensors", [TensorSource.of(n, a) for n, a in arrays.items()], metadata={})
    import lastcli
    from lastcli.evaluation.data import Split
    from lastcli.evaluation.passes import model_outputs

    x = rng.normal(size=(60, 12, 2)).astype(np.float32)
    with lastcli.open("m.safetensors") as model:
        logits = np.concatenate(list(model_outputs(model.require_forward(), model.params, model.systems, Split(x))))[
            :, 0
        ]
        middle = np.median(logits)
    arrays["decoder.bias"] = (arrays["decoder.bias"] - middle).astype("f4")
    containers.write(
        tmp_path / "m.safetensors", [TensorSource.of(n, a) for n, a in arrays.items()], metadata={}, force=True
    )
    y = (logits > middle).astype(int)
    y[:4] = 1 - y[:4]
    np.savez("data.npz", x=x, y=y)
    return y, logits - middle


@pytest.mark.parametrize("name", ["accuracy", "f1", *RANKED])
def test_a_model_of_one_logit_is_measured_and_gated(name, one_logit, last):
    y, z = one_logit
    code, out, err = last("eval", "m.safetensors", "--data", "data.npz", "--metric", name, "--json")
    assert code == 0, err
    decided = {"accuracy": reference.accuracy_score, "f1": reference.f1_score}
    wanted = decided[name](y, z > 0) if name in decided else SCORES[name](y, z, None)
    assert json.loads(out)["value"] == pytest.approx(wanted, abs=1e-6)
    swept = ("sweep", "m.safetensors", "--data", "data.npz", "--metric", name, "--ratios", "0,0.8", "--json")
    code, out, err = last(*swept, "--fail-over", "1")
    assert code == 0, err
    assert last(*swept, "--fail-over", "-1")[0] == 1
    goal = ("--max-drop", "0.2", "--significance", "0.05", "--out", "small.safetensors")
    assert last("prune", "m.safetensors", "--data", "data.npz", "--metric", name, *goal)[0] == 0
    np.savez("wrong.npz", x=np.load("data.npz")["x"], y=1 - y)
    code, _, err = last(*("wrong.npz" if part == "data.npz" else part for part in swept), "--fail-over", "1")
    assert (code, "does not beat" in err) == (1, True), err


def test_labels_beyond_two_classes_and_metrics_of_others_are_refused(one_logit, last):
    y, _ = one_logit
    np.savez("three.npz", x=np.load("data.npz")["x"], y=y + 1)
    code, _, err = last("eval", "m.safetensors", "--data", "three.npz")
    assert (code, "2 classes, 0 to 1" in err) == (3, True), err
    code, _, err = last("eval", "m.safetensors", "--data", "data.npz", "--metric", "mse")
    assert (code, "use accuracy, auroc, average_precision or f1" in err) == (2, True), err


@pytest.mark.parametrize("name", RANKED)
def test_a_label_that_is_never_scored_is_left_out_of_the_mean(name):
    rng = np.random.default_rng(3)
    y, z = rng.integers(0, 2, 40), rng.normal(size=40)
    statistics = np.stack([np.stack([z, y], 1), np.full((40, 2), np.nan)], 1).reshape(40, -1)
    metric = Metric(f"{name}_macro", labels=2)
    assert metric.value(statistics) == pytest.approx(SCORES[name](y, z, None))
