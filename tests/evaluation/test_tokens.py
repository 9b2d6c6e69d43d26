"""Classes at every step: next tokens, labels that are not scored, perplexity, and text through a tokenizer."""

import json
import math

import numpy as np
import pytest

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.choice import choose_metric
from lastcli.evaluation.data import Split, open_split
from lastcli.evaluation.fitting import fit_split, random_split
from lastcli.evaluation.metrics import Metric
from lastcli.evaluation.readers.text import load_text
from lastcli.evaluation.significance import compare
from lastcli.evaluation.soundness import trivial_value
from lastcli.families.base import Forward

MODEL = Forward(lambda *_: None, 5, 5, sequence=True, tokens=True)
X = np.array([[1, 2, 3, 4], [4, 0, 0, 1]])


def test_values_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 7, 5)).astype("f4")
    y = rng.integers(0, 5, (6, 7))
    y[rng.random((6, 7)) < 0.4] = -100
    p = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(-1, keepdims=True)
    scored = [(i, t) for i in range(6) for t in range(7) if y[i, t] >= 0]
    nll = np.mean([-math.log(p[i, t, y[i, t]]) for i, t in scored])
    right = np.mean([logits[i, t].argmax() == y[i, t] for i, t in scored])
    for name, wanted in (("nll", nll), ("perplexity", math.exp(nll)), ("accuracy", right)):
        metric = Metric(name, sequence=True)
        statistics = metric.statistics(logits, y)[:, 0]
        assert metric.value(statistics) == pytest.approx(wanted, rel=1e-5)
        low, high = metric.interval(statistics)
        assert low <= wanted <= high
        assert compare(metric, statistics, statistics).drop == 0
    assert Metric("nll", sequence=True).drop(1.0, 1.25) == pytest.approx(0.25)
    assert Metric("perplexity", sequence=True).drop(4.0, 5.0) == pytest.approx(0.25)


def test_steps_beyond_the_length_and_before_the_warm_up_do_not_count():
    logits = np.zeros((1, 4, 5), "f4")
    logits[0, 1, 2] = 10
    y = np.array([[0, 2, 0, 0]])
    metric = Metric("accuracy", warmup=1, sequence=True)
    assert metric.value(metric.statistics(logits, y, np.array([2]))[:, 0]) == 1.0


def test_without_labels_the_next_token_is_the_label():
    fitted = fit_split(Split(X, lengths=np.array([4, 3])), MODEL)
    np.testing.assert_array_equal(fitted.y, [[2, 3, 4, -100], [0, 0, -100, -100]])
    assert choose_metric(None, MODEL, fitted).name == "perplexity"
    with pytest.raises(UsageError, match="perplexity, nll or accuracy"):
        choose_metric("mse", MODEL, fitted)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.array([[1, 2, 3, 5], [0, 0, 0, 0]]), "label 5 at"),
        (np.full((2, 4), -100), "no step has a label"),
        (np.zeros((2, 3), int), "for every step"),
        (np.zeros((2, 4)), "for every step"),
    ],
)
def test_labels_that_do_not_fit(y, says):
    with pytest.raises(InputError, match=says):
        fit_split(Split(X, y), MODEL)


def test_inputs_are_tokens():
    assert random_split(MODEL, n=3, length=6).x.max() < 5
    with pytest.raises(InputError, match="whole-number tokens"):
        fit_split(Split(np.zeros((2, 4, 5), "f4")), MODEL)


def test_an_answer_that_looks_at_no_input():
    y = np.array([[0, 0, 0, 1], [0, -100, -100, 1]])
    split = Split(X, y)
    entropy = -(4 / 6 * math.log(4 / 6) + 2 / 6 * math.log(2 / 6))
    for name, wanted in (("accuracy", 4 / 6), ("nll", entropy), ("perplexity", math.exp(entropy))):
        assert trivial_value(Metric(name, sequence=True), split) == pytest.approx(wanted)


def test_text_becomes_tokens(tmp_path):
    pytest.importorskip("tokenizers")
    tokenizer = {
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "?": 3}, "unk_token": "?"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "text.txt").write_text("a b c a b\n")
    split = load_text(tmp_path / "text.txt", tmp_path / "tokenizer.json", length=3)
    np.testing.assert_array_equal(split.x, [[0, 1, 2], [0, 1, 0]])
    np.testing.assert_array_equal(split.lengths, [3, 2])
    np.testing.assert_array_equal(open_split(tmp_path / "text.txt", rows=slice(1)).x, [[0, 1, 2, 0, 1]])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="no tokenizer"):
        load_text(tmp_path / "text.txt", tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match="there is no"):
        load_text(tmp_path / "text.txt", tmp_path / "nothing.json")


def test_one_token_has_no_next_one(tmp_path):
    pytest.importorskip("tokenizers")
    tokenizer = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "text.txt").write_text("a")
    with pytest.raises(InputError, match=r"text\.txt has 1 tokens; a next token to predict takes two"):
        load_text(tmp_path / "text.txt", tmp_path / "tokenizer.json", length=3)
