"""What is not as one would read it is said: counts, sizes, pooled metrics, padding that is counted."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import lastcli
from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.engine.protocol import Reduction
from lastcli.errors import UnsupportedModelError
from lastcli.plan import METHODS, build_plan
from lastcli.results import LayerCertificate
from lastcli.verbs.shared.certificates import HOPELESS, constant_notes, refuse_hopeless, storage_notes
from lastcli.verbs.shared.kept_states import kept_note
from tests.builders.families import CASES
from tests.builders.s4d import s4d_model
from tests.conftest import write_s5
from tests.evaluation import models

EVERY = [(name, case) for name, cases in CASES.items() for case in cases]


def write(path, arrays):
    containers.write(path, [TensorSource.of(name, np.array(a, order="C")) for name, a in arrays.items()], metadata={})
    return path


@pytest.fixture
def channels(tmp_path, monkeypatch):
    """An S4D of two layers with four channels of five states: 40 states."""
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "s4d.safetensors", s4d_model(np.random.default_rng(0)))


@pytest.mark.parametrize(("name", "case"), EVERY, ids=[f"{name}-{case.name}" for name, case in EVERY])
def test_inspect_counts_the_states_that_are_scored_and_pruned(name, case, tmp_path):
    path = write(tmp_path / "m.safetensors", case.build(np.random.default_rng(1)))
    with lastcli.open(path, model={"family": name, **case.changes}) as model:
        found = lastcli.inspect(model)
        assert found.states == sum(system.stored_states for system in model.systems)
        assert [(layer.states, layer.sets) for layer in found.layers] == [(s.states, s.sets) for s in model.systems]
        differ = found.states != model.states
        assert any("diagonalised" in note for note in found.notes) == differ


def test_the_states_of_a_low_rank_layer_are_those_of_its_diagonal_form(tmp_path):
    case = CASES["s4_dplr"][0]
    path = write(tmp_path / "m.safetensors", case.build(np.random.default_rng(1)))
    described = {"family": "s4_dplr", **case.changes}
    pruned = lastcli.prune(path, ratio=0.3, dry_run=True, model=described)
    assert lastcli.inspect(path, model=described).states == pruned.states_before


def test_channels_share_a_count_so_that_fewer_states_stay_than_asked_for(last, channels):
    code, out, err = last("prune", channels, "--states", "15", "--dry-run", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["states_after"] == 12
    (note,) = found["notes"]
    assert note == (
        "12 states stay, fewer than the 15 of --states 15: all channels of a layer keep the same number, so that its "
        "states go 4 at a time."
    )
    assert note in err
    assert note in last("prune", channels, "--states", "15", "--dry-run")[1]
    code, out, err = last("prune", channels, "--ratio", "0.6", "--dry-run", "--json")
    assert (json.loads(out)["states_after"], json.loads(out)["notes"], err) == (16, [], "")
    code, out, _ = last("prune", channels, "--ratio", "0.62", "--dry-run", "--json")
    assert "12 states stay, fewer than the 15 of --ratio 0.62: " in json.loads(out)["notes"][0]


def test_floors_keep_more_than_asked_for(last, channels, tiny):
    code, out, err = last("prune", channels, "--states", "3", "--dry-run", "--json")
    assert code == 0
    note = "8 states stay, more than the 3 of --states 3: every channel of every layer keeps at least 1 (--min-states)."
    assert json.loads(out)["notes"] == [note]
    assert note in err
    _, out, _ = last("prune", tiny, "--ratio", "0.9", "--min-states", "2", "--dry-run", "--json")
    wanted = "4 states stay, more than the 1 of --ratio 0.9: every layer keeps at least 2 (--min-states)."
    assert json.loads(out)["notes"] == [wanted]


def test_a_uniform_layout_says_when_it_keeps_fewer(last, tiny):
    code, out, err = last("prune", tiny, "--states", "7", "--layout", "uniform", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["states_after"] == 6
    note = "6 states stay, fewer than the 7 of --states 7: every layer keeps the same number (--layout uniform)."
    assert json.loads(out)["notes"] == [note]
    assert note in err
    _, out, err = last("prune", tiny, "--states", "6", "--layout", "uniform", "--dry-run", "--json")
    assert (json.loads(out)["notes"], err) == ([], "")


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A torch file with a small model and a large one, and the small one alone."""
    monkeypatch.chdir(tmp_path)
    as_torch = lambda arrays: {name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}  # noqa: E731
    small = as_torch(s4d_model(np.random.default_rng(0), N=20))
    large = as_torch(s4d_model(np.random.default_rng(1), H=32, N=20))
    torch.save({"small": small, "large": large}, tmp_path / "two.pt")
    torch.save(small, tmp_path / "alone.pt")
    return tmp_path / "two.pt"


def test_the_size_before_is_that_of_the_model_which_is_carried_on(last, two):
    _, out, _ = last("prune", two.with_name("alone.pt"), "--ratio", "0.5", "--out", "a.pt", "--json", "-q")
    alone = json.loads(out)
    assert alone["bytes_before"] == two.with_name("alone.pt").stat().st_size
    code, out, err = last("prune", two, "--name", "small", "--ratio", "0.5", "--out", "b.pt", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["bytes_before"] == pytest.approx(alone["bytes_before"], rel=0.1)
    assert found["bytes_before"] < two.stat().st_size / 3
    assert f"the whole file has {two.stat().st_size:,} bytes" in " ".join(found["notes"])
    _, out, _ = last("prune", two, "--name", "small", "--ratio", "0.5", "--dry-run", "--json", "-q")
    dry = json.loads(out)
    assert dry["bytes_before"] < two.stat().st_size / 3
    assert dry["bytes_after"] < dry["bytes_before"]


def test_bench_counts_the_model_that_was_pruned(last, two):
    last("prune", two, "--name", "small", "--ratio", "0.5", "--out", "b.pt", "-q")
    with lastcli.open(two, name="small") as model, lastcli.open("b.pt") as small:
        found = lastcli.bench(model, small, length=8, repeats=1)
    assert found.original.bytes < two.stat().st_size / 3
    assert found.pruned.bytes == two.with_name("b.pt").stat().st_size
    assert any("whole file" in note for note in found.notes)


@pytest.fixture
def targets(tiny):
    """A regression model with two outputs, and targets for it."""
    rng = np.random.default_rng(5)
    model = write_s5(tiny.with_name("regression.safetensors"), task="regression")
    np.savez("t.npz", x=rng.normal(size=(30, 9, 3)).astype(np.float32), y=rng.normal(size=(30, 2)))
    return model, "t.npz"


@pytest.mark.parametrize("metric", ["mse", "mae", "rmse", "fit"])
def test_a_metric_that_pools_several_outputs_says_so(last, targets, metric):
    model, data = targets
    for command in (("eval",), ("sweep", "--ratios", "0.5"), ("prune", "--ratio", "0.5", "--dry-run")):
        code, out, err = last(*command, model, "--data", data, "--metric", metric, "--json")
        assert code == 0, err
        said = any(f"{metric} pools the 2 outputs" in note for note in json.loads(out)["notes"])
        assert said == (metric in ("rmse", "fit"))
    if metric == "fit":
        assert "fit pools the 2 outputs" in last("eval", model, "--data", data, "--metric", metric)[1]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("shortest", [5, 9])
def test_padding_that_a_calibration_counts_is_said(last, tiny, bidirectional, shortest):
    model = write_s5(tiny.with_name("both.safetensors"), bidirectional=bidirectional)
    rng = np.random.default_rng(5)
    x, lengths = rng.normal(size=(12, 9, 3)).astype(np.float32), np.full(12, 9)
    lengths[3] = shortest
    np.savez("c.npz", x=x, lengths=lengths)
    command = ("prune", model, "--ratio", "0.5", "--calibration", "c.npz", "--dry-run", "--json")
    code, out, err = last(*command, "--refit", "calibrated")
    assert code == 0, err
    said = any("counts the padding" in note for note in json.loads(out)["notes"])
    assert said == ("counts the padding" in err) == (bidirectional and shortest < 9)
    _, out, err = last(*command, "--refit", "none")
    assert "counts the padding" not in out + err


@pytest.mark.parametrize(
    ("options", "after", "says"),
    [
        ({"layout": "proportional"}, 3, "the layers keep the ratio of their sizes (--layout proportional)"),
        ({"states_multiple": 2}, 4, "every index set keeps a multiple of 2 (--states-multiple)"),
        ({"min_states": 0, "states_multiple": 4}, 8, "every index set keeps a multiple of 4 (--states-multiple)"),
        ({"min_states": 0, "compat": "reference"}, 6, "states that tie with the last kept one stay too (--compat "),
        ({"min_states": 0}, 6, "a model keeps at least one"),
    ],
)
def test_every_reason_for_another_number_of_states_is_named(options, after, says):
    plan = build_plan({"states": 5, **options})
    note = kept_note(models.systems(), plan, after, pinned=False)
    begins = f"{after} states stay, {'fewer' if after < 5 else 'more'} than the 5 of --states 5: {says}"
    assert note.startswith(begins)
    assert kept_note(models.systems(), plan, 5, pinned=False) is None


def certificate(**errors):
    return LayerCertificate(name="layer", states_before=6, states_after=3, **errors)


def test_a_method_that_settles_says_where_the_format_has_no_place_for_it():
    settling = next(method for method in METHODS.values() if method.settles)
    (note,) = constant_notes([certificate(dc_error=0.25), certificate(dc_error=1e-9), certificate()], settling)
    assert f"{settling.name} does not keep the response to constant inputs in 1 layer" in note
    assert "off by up to 25%, layer" in note
    assert constant_notes([certificate(dc_error=1e-9)], settling) == []
    assert constant_notes([certificate(dc_error=0.25)], METHODS["last"]) == []


def test_a_layer_beyond_all_hope_is_refused_and_one_without_a_norm_is_not():
    refuse_hopeless([])
    refuse_hopeless([certificate(), certificate(h2_error=np.inf), certificate(h2_error=HOPELESS)])
    with pytest.raises(UnsupportedModelError, match=r"layer: the reduced layer's H2 error is .* over the limit of"):
        refuse_hopeless([certificate(h2_error=0.1), certificate(h2_error=2 * HOPELESS)])


def test_a_pole_that_rounding_moves_over_the_circle_is_named():
    system = models.systems()[0]
    near = system.replace(poles=system.poles / np.abs(system.poles) * 0.9999)
    there = Reduction(np.arange(6)[None], near, "all")
    over = Reduction(there.kept, near.replace(poles=near.poles / 0.9999), "all")
    layer = SimpleNamespace(name="l", tensors={"A": "l.A", "D": "none"})
    checkpoint = SimpleNamespace(
        layers=[layer], reader=SimpleNamespace(tensors={"l.A": SimpleNamespace(dtype="float16")})
    )
    (note,) = storage_notes(checkpoint, [there], [over])
    assert note.startswith("Storage as float16 moves a pole of l: 1 - |λ| is 0.0001 and becomes ")
    assert storage_notes(checkpoint, [there], [there]) == []
