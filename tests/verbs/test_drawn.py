"""`--calibration drawn`: inputs that are drawn where none of the model's own are at hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lastcli import containers
from lastcli.errors import UsageError
from lastcli.verbs.shared.drawing import drawn_inputs

COMMON = ("--method", "obs", "--refit", "calibrated", "--ratio", "0.5")


def tensors(path):
    with containers.open_reader(path) as reader:
        return {name: reader.read(name) for name in reader.tensors}


def test_it_is_calibrating_on_such_numbers_from_a_file(last, tiny, tmp_path):
    x = np.random.default_rng(3).standard_normal((20, 9, 3), dtype=np.float32) * np.float32(0.5) + np.float32(2)
    np.savez(tmp_path / "c.npz", x=x)
    text = "drawn:n=20,length=9,mean=2,std=0.5"
    code, _, err = last("prune", tiny, *COMMON, "--calibration", text, "--seed", "3", "--out", "a.safetensors")
    assert code == 0, err
    assert f"Calibration: {text} with seed 3: Gaussian inputs" in err
    assert "no data of the model is looked at" in err
    assert last("prune", tiny, *COMMON, "--calibration", "c.npz", "--seed", "3", "--out", "b.safetensors")[0] == 0
    drawn, read = tensors(tmp_path / "a.safetensors"), tensors(tmp_path / "b.safetensors")
    assert drawn.keys() == read.keys()
    for name in drawn:
        np.testing.assert_array_equal(drawn[name], read[name])


def test_verify_draws_them_again(last, tiny):
    text = "drawn:n=20,length=9"
    assert last("prune", tiny, *COMMON, "--calibration", text, "--out", "a.safetensors")[0] == 0
    code, out, err = last("verify", tiny, "a.safetensors", "--calibration", text)
    assert code == 0, err
    assert "recomputed" in out


def test_sequences_are_as_long_as_those_of_the_data(last, tiny, data):
    code, _, err = last("sweep", tiny, "--data", data, *COMMON[:4], "--ratios", "0.5", "--calibration", "drawn:n=6")
    assert code == 0, err
    assert "drawn:n=6,length=9,mean=0,std=1 with seed 0, as long as those of --data" in err


def test_a_length_that_nothing_names_is_said(last, tiny):
    code, _, err = last("prune", tiny, *COMMON, "--calibration", "drawn:n=2", "--dry-run")
    assert code == 0, err
    assert "length=1024" in err
    assert "say drawn:length=N" in err


def forward(**more):
    given = {"tokens": False, "layout": "single", "features": 5, "output_step": 1, "input_step": 1, "series": 0}
    return SimpleNamespace(**given | more)


def test_what_is_drawn_has_the_statistics_that_were_asked_for():
    split, _ = drawn_inputs("drawn:n=400,length=50,mean=-3,std=0.25", forward(), None, 0)
    x = np.asarray(split.x)
    assert x.shape == (400, 50, 5)
    np.testing.assert_allclose(x.mean((0, 1)), -3, atol=0.01)
    np.testing.assert_allclose(x.std((0, 1)), 0.25, rtol=0.02)
    # white: what a step says is nothing about the next one
    later = ((x[:, 1:] + 3) * (x[:, :-1] + 3)).mean((0, 1)) / 0.25**2
    assert np.abs(later).max() < 0.03


def test_tokens_are_as_likely_as_one_another_and_have_no_mean():
    split, sentence = drawn_inputs("drawn:n=100,length=50", forward(tokens=True), None, 0)
    counts = np.bincount(np.asarray(split.x).ravel(), minlength=5)
    np.testing.assert_allclose(counts / counts.sum(), 0.2, atol=0.02)
    assert "tokens, each as likely as any other" in sentence
    with pytest.raises(UsageError, match="tokens, which have no mean and no std"):
        drawn_inputs("drawn:std=2", forward(tokens=True), None, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drawn:", "says nothing"),
        ("drawn:512", "'512' says nothing"),
        ("drawn:lenght=5", "Did you mean 'length'?"),
        ("drawn:n=0", "n=0 is not a whole number from 1 on"),
        ("drawn:n=1.5", "n=1.5 is not a whole number"),
        ("drawn:mean=nan", "mean=nan is not a number"),
        ("drawn:std=0", "std=0 is not above 0"),
        ("drawn:n=4,n=5", "says n twice"),
    ],
)
def test_texts_that_say_nothing(last, tiny, text, message):
    code, out, err = last("prune", tiny, *COMMON, "--calibration", text, "--dry-run")
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "write drawn, or drawn:n=256" in " ".join(err.split())


def test_a_file_of_that_name_is_named_by_its_folder(last, tiny, tmp_path):
    x = np.random.default_rng(1).normal(size=(8, 9, 3)).astype(np.float32)
    with (tmp_path / "drawn").open("wb") as file:
        np.savez(file, x=x)
    code, _, err = last("prune", tiny, *COMMON, "--calibration", "./drawn", "--dry-run")
    assert code == 0, err
    assert "no data of the model" not in err


def test_a_recipe_may_say_it(last, tiny, tmp_path):
    (tmp_path / "r.yaml").write_text("checkpoint: tiny.safetensors\ncalibration: drawn:n=4,length=9\nmethod: obs\n")
    assert last("recipe", "check", "r.yaml")[0] == 0
    code, _, err = last("prune", "--recipe", "r.yaml", "--ratio", "0.5", "--dry-run")
    assert code == 0, err
    assert "drawn:n=4,length=9" in err
