"""docs/tasks.md, and every task through the verbs: labels settle it, gates and searches run, files keep it."""

import csv
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from lastcli import api, containers
from lastcli.containers.base import TensorSource
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import model_outputs
from tests.builders.lru import minimal_lru, torch_model
from tests.builders.named import Arrays
from tests.builders.s4d import dense, s4d_model
from tests.builders.s5 import s5_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
N, L, K = 80, 9, 5


def written(path: Path, arrays: Arrays) -> Path:
    containers.write(path, [TensorSource.of(n, a) for n, a in arrays.items()], metadata={}, force=True)
    return path


def outputs_of(path: Path, x: np.ndarray, **model: object) -> np.ndarray:
    with api.open(path, model=model) as checkpoint:
        found = model_outputs(checkpoint.require_forward(), checkpoint.params, checkpoint.systems, Split(x))
        return np.concatenate(list(found))


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    """An S4D with five logits, labels that it is mostly right about, and classes of every step."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {**s4d_model(rng), **dense(rng, "decoder", K, 4)}
    x = rng.normal(size=(N, L, 2)).astype("f4")
    arrays["decoder.weight"] = 20 * arrays["decoder.weight"]
    z = outputs_of(written(tmp_path / "model.safetensors", arrays), x)
    arrays["decoder.bias"] = (arrays["decoder.bias"] - np.median(z, 0)).astype("f4")
    written(tmp_path / "model.safetensors", arrays)
    z = outputs_of(tmp_path / "model.safetensors", x)
    y = (rng.random(z.shape) < 1 / (1 + np.exp(-z))).astype(int)
    np.savez("labels.npz", x=x, y=y)
    steps = outputs_of(tmp_path / "model.safetensors", x, mode="sequence")
    classes = steps.argmax(-1)
    classes[:, -2:] = -100
    np.savez("steps.npz", x=x, y=classes, lengths=rng.integers(4, L + 1, N))
    return y, z, steps, classes


@pytest.mark.slow
def test_the_page_of_tasks_is_followed(labelled, last):
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    for line in "".join(blocks).splitlines():
        command, *arguments = shlex.split(line.removeprefix("$ "))
        assert command == "last"
        code, _, err = last(*arguments)
        assert code == 0, err
        assert "task=multilabel" in err or "labels.npz" not in line or arguments[1] == "small.safetensors"


def test_the_page_names_every_metric(labelled):
    from lastcli.evaluation.metrics import METRICS

    text = PAGE.read_text()
    assert all(name in text for name in METRICS)


@pytest.mark.parametrize("cut", [None, 0.3])
def test_independent_labels(labelled, last, cut):
    y, z, *_ = labelled
    threshold = [] if cut is None else ["--threshold", str(cut)]
    called = 1 / (1 + np.exp(-z)) > (cut or 0.5)
    run = ("model.safetensors", "--data", "labels.npz", "--metric", "f1", *threshold, "--json")
    code, out, err = last("eval", *run)
    assert code == 0, err
    found = json.loads(out)
    assert (found["metric"], found["threshold"]) == ("f1_macro", cut)
    assert found["value"] == pytest.approx(reference.f1_score(y, called, average="macro"), abs=1e-6)
    assert found["ci_low"] < found["value"] < found["ci_high"]
    assert any("above a probability of 0.3" in note for note in found["notes"]) == (cut is not None)
    code, out, err = last("sweep", *run, "--ratios", "0,0.9", "--fail-over", "0.001", "--max-drop", "0.001")
    assert code == 1, err
    swept = json.loads(out)
    assert swept["baseline"] == pytest.approx(found["value"])
    assert swept["rows"][1]["drop"] == pytest.approx(swept["baseline"] - swept["rows"][1]["value"])
    assert (swept["threshold"], swept["chosen"]["ratio"]) == (cut, 0)
    goal = ("--max-drop", "0.1", "--out", f"small{cut}.safetensors")
    code, out, err = last("prune", *run, *goal)
    assert code == 0, err
    assert json.loads(out)["search"]["metric"] == "f1_macro"
    code, out, _ = last("eval", f"small{cut}.safetensors", *run[1:])
    assert found["value"] - json.loads(out)["value"] <= 0.1


def test_shares_are_shown_in_percent_and_lost_in_points(labelled, last):
    run = ("model.safetensors", "--data", "labels.npz", "--metric", "auroc")
    code, out, _ = last("sweep", *run, "--ratios", "0,0.9", "--max-drop", "0.5", "--fail-over", "0.5")
    assert code == 0
    assert "points lost" in out
    assert re.search(r"full .* \d\d\.\d% ", out)
    assert "no ratio loses more than 50 points" in out
    code, out, _ = last("prune", *run, "--max-drop", "0.5", "--dry-run")
    assert code == 0
    assert re.search(r"auroc_macro +points lost", out)
    assert re.search(r"loses \d+\.\d\d points", out)
    code, out, _ = last("sweep", *run, "--ratios", "0,0.9", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert float(rows[1]["value"]) < float(rows[0]["value"]) < 1


def test_classes_at_every_step(labelled, last):
    *_, steps, classes = labelled
    lengths = np.load("steps.npz")["lengths"]
    kept = (classes >= 0) & (np.arange(L) < lengths[:, None])
    z = steps[kept].astype("f8")
    nll = reference.log_loss(classes[kept], np.exp(z) / np.exp(z).sum(-1, keepdims=True), labels=range(K))
    values = {"accuracy": 1.0, "nll": nll, "perplexity": np.exp(nll)}
    for name, wanted in values.items():
        run = ("model.safetensors", "--set", "mode=sequence", "--data", "steps.npz", "--metric", name, "--json")
        code, out, err = last("eval", *run)
        assert code == 0, err
        assert json.loads(out)["value"] == pytest.approx(wanted, rel=1e-4)
        code, out, err = last("sweep", *run, "--ratios", "0.9", "--fail-over", "0.01")
        assert code == 1, err
        row, baseline = json.loads(out)["rows"][0], json.loads(out)["baseline"]
        gap = {"accuracy": baseline - row["value"], "nll": row["value"] - baseline}
        assert row["drop"] == pytest.approx(gap.get(name, row["value"] / baseline - 1))


@pytest.mark.parametrize(
    ("arrays", "k"),
    [(s5_checkpoint(np.random.default_rng(2)), 2), (minimal_lru(np.random.default_rng(2)), 4)],
    ids=["s5", "minimal-lru"],
)
def test_models_with_a_log_softmax_give_logits_of_independent_labels(arrays, k, tmp_path, monkeypatch, last):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "m.safetensors", arrays)
    with api.open(path) as checkpoint:
        features = checkpoint.require_forward().features
        assert checkpoint.require_forward().outputs == k
    x = np.random.default_rng(0).normal(size=(40, L, features)).astype("f4")
    raw = outputs_of(path, x, task="regression")
    np.testing.assert_array_equal(outputs_of(path, x, task="multilabel"), raw)
    y = (raw > np.median(raw, 0)).astype(int)
    np.savez("data.npz", x=x, y=y)
    code, out, err = last("eval", "m.safetensors", "--data", "data.npz", "--metric", "nll", "--json", "--quiet")
    assert code == 0, err
    wanted = np.mean([reference.log_loss(y[:, j], 1 / (1 + np.exp(-raw[:, j].astype("f8")))) for j in range(k)])
    assert json.loads(out)["value"] == pytest.approx(wanted, rel=1e-4)
    assert last("prune", "m.safetensors", "--data", "data.npz", "--ratio", "0.3", "--out", "s.safetensors")[0] == 0
    with api.open("s.safetensors") as small:
        assert small.config["task"] == "multilabel"
    code, out, err = last("verify", "m.safetensors", "s.safetensors")
    assert code == 0, out + err


def test_one_logit_behind_a_log_softmax_stays_a_logit(tmp_path):
    arrays = s5_checkpoint(np.random.default_rng(2))
    arrays = {n: a[..., :1] if n.startswith("params/decoder") else a for n, a in arrays.items()}
    x = np.random.default_rng(0).normal(size=(4, L, 3)).astype("f4")
    assert np.ptp(outputs_of(written(tmp_path / "m.safetensors", arrays), x)) > 0


def test_whole_numbers_for_a_regression_at_every_step_are_classes_and_a_flag_is_the_last_word(tmp_path, last):
    path = written(tmp_path / "m.safetensors", torch_model(np.random.default_rng(1)))
    x = np.random.default_rng(0).normal(size=(20, L, 2)).astype("f4")
    data = tmp_path / "d.npz"
    np.savez(data, x=x, y=outputs_of(path, x).argmax(-1))
    code, out, err = last("eval", str(path), "--data", str(data), "--json")
    assert (code, json.loads(out)["metric"], json.loads(out)["value"]) == (0, "accuracy", 1.0), err
    code, _, err = last("eval", str(path), "--data", str(data), "--set", "task=regression")
    assert (code, "the model's outputs have shape" in err) == (3, True), err


def test_next_tokens_of_a_model_of_tokens(tmp_path, last):
    rng = np.random.default_rng(3)
    arrays = {**s4d_model(rng), **dense(rng, "encoder", 4, 6), **dense(rng, "decoder", 6, 4)}
    path, x = written(tmp_path / "m.safetensors", arrays), rng.integers(0, 6, (12, L))
    np.savez(tmp_path / "d.npz", x=x)
    z = outputs_of(path, x, mode="sequence")[:, :-1].reshape(-1, 6).astype("f8")
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    wanted = np.exp(reference.log_loss(x[:, 1:].ravel(), p, labels=range(6)))
    run = ("eval", str(path), "--set", "mode=sequence", "--data", str(tmp_path / "d.npz"), "--json")
    code, out, err = last(*run)
    found = json.loads(out)
    assert (code, found["metric"], found["value"]) == (0, "perplexity", pytest.approx(wanted, rel=1e-4)), err
    assert found["ci_low"] < found["value"] < found["ci_high"]


FORWARD = """
import numpy as np
def logits(tensors, x):
    return 6 * x[:, 0]
def sigmoids(tensors, x):
    return 1 / (1 + np.exp(-logits(tensors, x)))
def softmaxes(tensors, x):
    e = np.exp(logits(tensors, x))
    return e / e.sum(-1, keepdims=True)
def bad(tensors, x):
    return sigmoids(tensors, x) + 0.5
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's functions, and splits for them; the model does not matter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(FORWARD)
    rng = np.random.default_rng(0)
    written(tmp_path / "m.safetensors", s4d_model(rng))
    x = rng.normal(size=(90, 2, 3)).astype("f4")
    np.savez("labels.npz", x=x, y=(x[:, 0] + rng.normal(size=(90, 3)) > 0).astype(int))
    np.savez("classes.npz", x=x, y=(x[:, 0] + rng.normal(size=(90, 3))).argmax(-1))


@pytest.mark.parametrize(("data", "function"), [("labels.npz", "sigmoids"), ("classes.npz", "softmaxes")])
def test_probabilities_of_a_users_function_are_taken_as_they_are(own, last, data, function):
    def value(name, *more):
        code, out, err = last(
            "eval", "m.safetensors", "--forward", f"own.py:{name}", "--data", data, "--metric", "nll", "--json", *more
        )
        assert code == 0, err
        return json.loads(out), err

    wanted, err = value("logits")
    assert "probabilities" not in err
    found, err = value(function)
    assert found["value"] == pytest.approx(wanted["value"], rel=1e-5)
    assert "taken as probabilities" in err
    assert any("taken as probabilities" in note for note in found["notes"])
    declared, err = value(function, "--outputs", "probabilities")
    assert declared["value"] == found["value"]
    assert "taken as" not in err
    as_logits, _ = value(function, "--outputs", "logits")
    assert as_logits["value"] != pytest.approx(wanted["value"], rel=1e-2)


def test_what_is_declared_must_be_true_and_mean_something(own, last):
    run = ("eval", "m.safetensors", "--data", "labels.npz", "--metric", "f1")
    code, _, err = last(*run, "--forward", "own.py:bad", "--outputs", "probabilities")
    assert (code, "no probabilities" in err) == (2, True), err
    code, _, err = last(*run, "--outputs", "probabilities")
    assert (code, "with --forward" in err) == (2, True), err
    code, _, err = last(*run, "--forward", "own.py:sigmoids", "--threshold", "1.5")
    assert (code, "between 0 and 1" in err) == (2, True), err
    code, out, err = last(*run, "--forward", "own.py:sigmoids", "--threshold", "0.2", "--json")
    x, y = (np.load("labels.npz")[key] for key in "xy")
    wanted = reference.f1_score(y, 1 / (1 + np.exp(-6 * x[:, 0])) > 0.2, average="macro")
    assert json.loads(out)["value"] == pytest.approx(wanted), err


def test_labels_settle_the_task_of_divided_data_too(labelled, last):
    code, _, err = last("sweep", "model.safetensors", "--data", "labels.npz", "--calibration", "split:0.5", "--json")
    assert code == 0, err
    assert "task=multilabel" in err
