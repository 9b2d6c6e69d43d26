"""What a model cannot hold, or a run lacks, is refused before anything is computed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers.base import TensorSource
from tests.builders.dss import dss_layer
from tests.builders.linoss import linoss_model
from tests.builders.mega import in_a_model, mega_layer
from tests.builders.s4 import prefixed
from tests.builders.s4d import dense, norm


def write(path, arrays, **description):
    metadata = {"last.description": json.dumps(description)} if description else {}
    containers.write(path, [TensorSource.of(name, array) for name, array in arrays.items()], metadata=metadata)
    return path


@pytest.fixture
def dss(tmp_path, monkeypatch):
    """Two DSS layers inside the S4 repository's example model: poles that no file of it can move."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    arrays = {**dense(rng, "encoder", 4, 2)}
    for i in range(2):
        arrays |= prefixed(dss_layer(rng, "exp", H=4, N=6), f"s4_layers.{i}.")
        arrays |= dense(rng, f"s4_layers.{i}.output_linear.0", 8, 4, (1,))
        arrays |= norm(rng, f"norms.{i}", 4)
    arrays |= dense(rng, "decoder", 3, 4)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(12, 10, 2)).astype(np.float32), y=np.arange(12) % 3)
    return write(tmp_path / "dss.safetensors", {name: array.astype(np.float32) for name, array in arrays.items()})


def nothing_runs(monkeypatch):
    """Make every computation of a reduction an error."""
    from lastcli.reduction.compressor import Compressor

    def refuse(*_, **__):
        raise RuntimeError("something was computed")

    for name in ("energies", "moments", "kept", "_balanced"):
        monkeypatch.setattr(Compressor, name, refuse)


@pytest.mark.parametrize("pair", [("last", "poles"), ("obs", "poles"), ("balanced", "none"), ("balanced-dc", "h2")])
def test_moved_poles_are_refused_before_any_work_where_the_format_holds_none(last, dss, monkeypatch, pair):
    nothing_runs(monkeypatch)
    method, refit = pair
    for verb, goal in (("prune", ["--ratio", "0.5", "--dry-run"]), ("sweep", ["--ratios", "0.5"])):
        code, out, err = last(
            verb, dss, "--method", method, "--refit", refit, *goal, "--data", "d.npz", "--calibration", "d.npz"
        )
        assert code == 4, err
        assert out == ""
        assert "poles" in err


def test_a_comparison_leaves_out_what_the_model_cannot_hold_and_says_so(last, dss):
    code, out, err = last(
        "sweep", dss, "--data", "d.npz", "--calibration", "d.npz", "--methods", "last,obs,balanced",
        "--refits", "none,h2,poles", "--ratios", "0.5", "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    pairs = [(row["method"], row["refit"]) for row in found["rows"]]
    assert pairs == [("last", "none"), ("last", "h2"), ("obs", "none"), ("obs", "h2")]
    said = [note for note in found["notes"] if note.startswith("Left out: ")]
    assert [note.split(". ")[0] for note in said] == [
        "Left out: last + poles", "Left out: obs + poles", "Left out: balanced + none", "Left out: balanced + h2",
        "Left out: balanced + poles",
    ]  # fmt: skip
    shown = last("sweep", dss, "--data", "d.npz", "--calibration", "d.npz", "--refits", "none,poles", "--ratios", "0.5")
    assert "Left out: last + poles" in " ".join(shown[1].split())


def test_a_real_read_out_is_refused_complex_states_before_any_work(last, tmp_path, monkeypatch):
    nothing_runs(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "m.safetensors", in_a_model(mega_layer(np.random.default_rng(0))))
    code, _, err = last("prune", "m.safetensors", "--method", "balanced", "--ratio", "0.5", "--dry-run")
    assert code == 4, err
    assert "gives the states a complex read-out, and the checkpoint holds a real one" in " ".join(err.split())


def test_oscillators_are_refused_new_poles_before_any_work(last, tmp_path, monkeypatch):
    nothing_runs(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "m.safetensors", linoss_model(np.random.default_rng(0)))
    code, _, err = last("prune", "m.safetensors", "--method", "balanced", "--ratio", "0.5", "--dry-run")
    assert code == 4, err


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--refit", "calibrated"], 2, "--calibration"),
        (["--method", "obs-sensitivity"], 2, "--calibration"),
        (["--match-output"], 2, "--calibration"),
        (["--method", "balanced", "--refit", "sequential", "--calibration", "data.npz"], 2, "moves them"),
        (["--data", "none.npz"], 3, "none.npz"),
        (["--metric", "mse", "--data", "data.npz"], 2, "metric"),
    ],
)
@pytest.mark.parametrize("verb", ["prune", "sweep"])
def test_what_a_run_lacks_is_said_before_any_work(last, tiny, data, monkeypatch, verb, more, code, words):
    nothing_runs(monkeypatch)
    goal = ["--ratio", "0.5", "--dry-run"] if verb == "prune" else ["--ratios", "0.5"]
    if verb == "sweep" and "--data" not in more:
        more = [*more, "--data", data]
    found, _, err = last(verb, tiny, *goal, *more)
    assert found == code, err
    assert words in err


@pytest.mark.parametrize("out", ["there.safetensors", "tiny.safetensors", "small.h5"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(last, tiny, monkeypatch, out):
    nothing_runs(monkeypatch)
    tiny.with_name("there.safetensors").write_bytes(b"mine")
    code, _, err = last("prune", tiny, "--ratio", "0.5", "--out", out)
    assert code == 5, err
    assert tiny.with_name("there.safetensors").read_bytes() == b"mine"
