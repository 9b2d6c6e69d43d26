"""A model with nothing to lose passes no gate: outputs that are NaN, and answers no better than chance."""

from __future__ import annotations

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

import lastcli
from lastcli.errors import GateError, InputError
from lastcli.evaluation.data import Split
from lastcli.evaluation.metrics import Metric
from lastcli.evaluation.sweep import Evaluation
from lastcli.model.description import Setting
from lastcli.verbs.shared.baseline import baseline_fault
from tests.conftest import write_s5


def spoilt(arrays):
    arrays[next(name for name in arrays if name.endswith("decoder/bias"))][0] = np.nan


@pytest.fixture
def nan(tiny):
    """`tiny` with one NaN in its decoder, outside the layers."""
    return write_s5(tiny.with_name("nan.safetensors"), change=spoilt)


@pytest.fixture
def rare(answered):
    """As `answered`, with the labels turned around: the model is always wrong."""
    with np.load(answered) as split:
        np.savez(answered.with_name("rare.npz"), x=split["x"], y=1 - split["y"])
    return answered.with_name("rare.npz")


@pytest.mark.parametrize(
    "arguments",
    [
        ("eval",),
        ("sweep", "--ratios", "0,0.5"),
        ("sweep", "--ratios", "0.5", "--fail-over", "0.01"),
        ("prune", "--ratio", "0.5", "--out", "small.safetensors"),
        ("prune", "--max-drop", "0.01", "--out", "small.safetensors"),
    ],
    ids=" ".join,
)
def test_nan_outputs_of_the_full_model_are_an_error_that_names_the_tensor(last, nan, answered, arguments):
    code, out, err = last(arguments[0], nan, *arguments[1:], "--data", answered, "--json")
    assert (code, out) == (3, "")
    assert "NaN or infinite for 100 of 100 examples" in err
    assert "decoder/bias holds NaN or infinity (first at [0]), which is outside the layers" in err
    assert not nan.with_name("small.safetensors").exists()


def test_bench_refuses_an_original_with_nan_and_says_it_of_a_pruned_one(last, nan, tiny):
    arguments = ("--repeats", "2", "--length", "8", "--json")
    code, out, err = last("bench", nan, tiny, *arguments)
    assert (code, out) == (3, "")
    assert "decoder/bias" in err
    code, out, err = last("bench", tiny, nan, *arguments)
    assert code == 0
    (note,) = json.loads(out)["notes"]
    assert "nan.safetensors: the outputs are NaN" in note
    assert note in err
    assert json.loads(last("bench", tiny, tiny, *arguments)[1])["notes"] == []


SHRINKING = """
import numpy as np

def outputs(tensors, x, lengths=None):
    poles = sum(a.shape[0] for name, a in tensors.items() if name.endswith("Lambda_re"))
    found = np.stack([-x[:, 0, 0], x[:, 0, 0]], 1)
    if poles < 9:
        found[:3] = np.nan
    return found
"""


@pytest.fixture
def shrinking(tmp_path):
    """A split, and a forward pass that is always right until states go, and then NaN for some examples."""
    (tmp_path / "own.py").write_text(SHRINKING)
    x = np.random.default_rng(0).normal(size=(60, 9, 3)).astype(np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=(x[:, 0, 0] > 0).astype(int))
    return ("--forward", str(tmp_path / "own.py:outputs"), "--data", str(tmp_path / "own.npz"))


def test_a_pruned_model_with_nan_outputs_never_passes_and_its_row_says_so(last, tiny, shrinking):
    # accuracy alone would not tell: 57 of 60 are still right
    arguments = ("sweep", tiny, *shrinking, "--ratios", "0,0.5", "--fail-over", "0.9", "--max-drop", "0.9")
    code, out, _ = last(*arguments, "--json")
    assert code == 1
    found = json.loads(out)
    assert found["passed"] is False
    assert found["chosen"]["ratio"] == 0
    sound, lost = found["rows"]
    assert sound["value"] == 1
    assert (lost["value"], lost["drop"], lost["ci_low"], lost["p_value"]) == (None, None, None, None)
    assert any("last + none at 0.5: outputs are NaN or infinite for 3 of 60" in note for note in found["notes"])
    _, table, _ = last(*arguments)
    row = next(line for line in table.splitlines() if line.lstrip().startswith("50%"))
    assert "not finite" in row
    assert "∞" in row
    assert "nan" not in row.lower()
    _, text, _ = last(*arguments, "--csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert (rows[1]["value"], rows[1]["drop"]) == ("", "")
    assert "nan" not in text.lower()


def test_the_search_takes_no_model_with_nan_outputs(last, tiny, shrinking):
    arguments = ("prune", tiny, *shrinking, "--max-drop", "0.9", "--dry-run")
    for more in ((), ("--significance", "0.05")):
        code, out, err = last(*arguments, *more, "--json")
        assert code == 0, err
        assert json.loads(out)["states_after"] >= 9
        tried = [step for step in json.loads(out)["search"]["steps"] if step["states"] < 9]
        assert tried
        assert all(step["within"] is False and step["value"] is None for step in tried)
    _, table, _ = last(*arguments)
    assert "not finite" in table
    code, out, err = last("prune", tiny, *shrinking, "--ratio", "0.5", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["measured"]["value"] is None
    assert any("The pruned model: outputs are NaN" in note for note in json.loads(out)["notes"])
    assert "The pruned model: outputs are NaN" in err


def test_a_model_at_chance_fails_every_gate(last, tiny, rare):
    arguments = ("sweep", tiny, "--data", rare, "--ratios", "0,0.5", "--set", "step_rescale=1")
    code, out, err = last(*arguments, "--fail-over", "5", "--json")
    assert code == 1
    found = json.loads(out)
    assert found["passed"] is False
    assert max(row["drop"] for row in found["rows"]) < 5, "the rows alone would have passed"
    assert "does not beat the most frequent class" in found["baseline_fault"]
    assert "given by flag or recipe: step_rescale=1.0" in found["baseline_fault"]
    assert found["baseline_fault"] in found["notes"]
    assert found["baseline_fault"] in err
    code, out, _ = last(*arguments, "--max-drop", "5", "--json")
    assert code == 1
    assert json.loads(out)["chosen"] is None
    code, out, _ = last(*arguments, "--max-drop", "5", "--fail-over", "5")
    assert code == 1
    assert "Gate FAILED: the full model is nothing to compare with" in out
    assert "Nothing is chosen" in out
    assert "loses more than" not in out
    code, out, err = last("prune", tiny, "--max-drop", "5", "--data", rare, "--out", "small.safetensors")
    assert (code, out) == (1, "")
    assert "does not beat the most frequent class" in err
    assert not tiny.with_name("small.safetensors").exists()


def test_without_a_gate_a_model_at_chance_is_a_warning(last, tiny, rare):
    for arguments in (
        ("eval", tiny),
        ("sweep", tiny, "--ratios", "0.5"),
        ("prune", tiny, "--ratio", "0.5", "--dry-run"),
    ):
        code, out, err = last(*arguments, "--data", rare, "--json")
        assert code == 0, err
        assert any("does not beat the most frequent class" in note for note in json.loads(out)["notes"])
        assert "does not beat the most frequent class" in err
        if arguments[0] != "eval":  # whose CSV is its one document
            _, text, _ = last(*arguments, "--data", rare, "--csv", "-q")
            assert "does not beat" not in text


def test_a_sound_model_is_not_accused(last, tiny, answered):
    code, out, _ = last("sweep", tiny, "--data", answered, "--ratios", "0", "--fail-over", "0.01", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["passed"], found["baseline_fault"], found["notes"]) == (True, None, [])
    assert json.loads(last("eval", tiny, "--data", answered, "--json")[1])["notes"] == []


def test_options_that_were_assumed_or_given_by_hand_are_named(tiny, rare):
    bare = write_s5(tiny.with_name("bare.safetensors"), describe=False)
    (fault,) = lastcli.evaluate(bare, data=rare, model={"conj_sym": True}).notes
    assert "assumed and perhaps wrong: " in fault
    assert "discretization=zoh" in fault
    assert "given by flag or recipe: conj_sym=True" in fault


def test_an_option_that_only_says_how_a_model_is_written_is_not_suspected():
    settings = {
        "form": Setting("s4d", "assumed"),
        "mode": Setting("pool", "assumed"),
        "eps": Setting(1e-5, "file"),
        "norm": Setting("batch", "recipe"),
    }
    session = SimpleNamespace(
        external=None,
        checkpoint=SimpleNamespace(settings=settings),
        examples=SimpleNamespace(measured_on=Split(np.zeros((2, 3, 1)), np.arange(2))),
    )
    found = Evaluation(Metric("accuracy"), 0.5, None, None, 2, np.zeros((2, 1)))
    assert baseline_fault(session, found) == (
        "The full model does not beat the most frequent class on data: accuracy 50.0%, and 50.0% for always answering "
        "that; assumed and perhaps wrong: mode=pool (set with --set or a sidecar); given by flag or recipe: norm=batch."
    )


@pytest.mark.parametrize("options", [("--method", "obs-sensitivity"), ("--match-output",)], ids=lambda o: o[-1])
def test_nothing_is_fitted_to_outputs_that_are_not_finite(last, nan, answered, options):
    code, out, err = last("prune", nan, *options, "--calibration", answered, "--ratio", "0.5", "--dry-run", "--json")
    assert (code, out) == (3, "")
    assert "NaN or infinite for 100 of 100 examples" in err
    assert "decoder/bias" in err


def test_python_raises_the_same_classes(nan, tiny, answered, rare):
    with pytest.raises(InputError):
        lastcli.evaluate(nan, data=answered)
    with pytest.raises(GateError):
        lastcli.prune(tiny, dry_run=True, max_drop=1.0, data=rare)


def test_the_bundled_model_misdescribed_fails_its_gate(last):
    arguments = ("sweep", "--set", "conj_sym=false", "--data", "bundled:test", "--ratios", "0.3,0.6")
    code, out, _ = last(*arguments, "--fail-over", "0.01", "--json", "-q")
    assert code == 1
    assert json.loads(out)["passed"] is False
    assert "11.7%" in json.loads(out)["baseline_fault"]
