"""Every verb on the command line, on a tiny S5: what it prints, what it writes, how it ends."""

import json

import numpy as np
import pytest

from lastcli import containers
from tests.conftest import write_s5

pytestmark = pytest.mark.usefixtures("short_searches")


def document(out):
    return json.loads(out)


def test_inspect_says_what_is_in_the_file_and_where_each_option_came_from(last, tiny):
    code, out, _ = last("inspect", tiny, "--json", "--set", "step_rescale=1")
    found = document(out)
    assert code == 0
    assert found["schema"] == "last.inspect/1"
    assert (found["family"], found["container"], found["states"]) == ("s5", "safetensors", 11)
    assert found["config"]["discretization"] == {"value": "zoh", "source": "file"}
    assert found["config"]["step_rescale"] == {"value": 1.0, "source": "flag"}
    assert found["bytes"] == tiny.stat().st_size


def test_score_gives_the_best_state_of_every_layer_one_and_sorts_by_energy(last, tiny):
    code, out, _ = last("score", tiny, "--json")
    found = document(out)
    assert code == 0
    assert found["schema"] == "last.score/1"
    for layer in found["layers"]:
        energy, score = np.array(layer["energy"]), np.array(layer["score"])
        order = np.argsort(-energy)
        expected = energy[order] / np.cumsum(energy[order])
        np.testing.assert_allclose(score[order], expected, rtol=1e-12)


@pytest.mark.parametrize("layout", ["ragged", "padded", "uniform"])
@pytest.mark.parametrize("suffix", [".safetensors", ".msgpack", ""])
def test_prune_writes_a_smaller_file_that_verifies_and_reads_back(last, tiny, data, layout, suffix):
    out_path = tiny.with_name("small" + suffix)
    code, out, err = last("prune", tiny, "--ratio", "0.4", "--layout", layout, "--out", out_path, "--json")
    assert code == 0, err
    found = document(out)
    assert found["states_before"] == 11
    assert found["states_after"] == sum(len(layer["kept"]) for layer in found["layers"]) == 6
    assert found["parameters_after"] <= found["parameters_before"]
    assert {"hinf_error_bound", "h2_error"} <= set(found["layers"][0])
    code, out, err = last("verify", tiny, out_path, "--json")
    assert code == 0, out
    assert document(out)["ok"] is True
    code, out, err = last("eval", out_path, "--data", data, "--json")
    assert code == 0, err
    assert document(out)["n"] == 40


def test_untouched_tensors_keep_their_bytes_and_pruned_ones_their_dtype(last, tiny):
    last("prune", tiny, "--ratio", "0.5", "--out", "small.safetensors", "-q")
    with containers.open_reader(tiny) as before, containers.open_reader(tiny.with_name("small.safetensors")) as after:
        assert list(before.tensors) == list(after.tensors)
        for name, info in before.tensors.items():
            assert after.tensors[name].dtype == info.dtype
            if "/seq/" not in name or name.endswith("/D"):
                assert before.read(name).tobytes() == after.read(name).tobytes()


def test_a_pruned_file_can_be_pruned_again_and_remembers(last, tiny):
    last("prune", tiny, "--ratio", "0.3", "--out", "one.safetensors", "-q")
    code, out, _ = last("prune", "one.safetensors", "--ratio", "0.5", "--out", "two.safetensors", "--json", "-q")
    assert code == 0
    assert document(out)["states_after"] == 3
    code, out, _ = last("inspect", "two.safetensors", "--json")
    record = document(out)["provenance"]
    assert record["source"] == "one.safetensors"
    assert record["history"][0]["source"] == "tiny.safetensors"


def test_sweep_shows_one_row_a_ratio_and_method_and_its_first_row_is_the_baseline(last, tiny, data):
    code, out, err = last("sweep", tiny, "--data", data, "--ratios", "0:0.8:0.4", "--methods", "last,random", "--json")
    assert code == 0, err
    found = document(out)
    assert found["schema"] == "last.sweep/1"
    assert [(row["method"], row["ratio"]) for row in found["rows"]] == [
        (method, ratio) for method in ("last", "random") for ratio in (0.0, 0.4, 0.8)
    ]
    assert found["rows"][0]["value"] == found["baseline"]
    assert found["rows"][0]["drop"] == 0
    assert sum(found["rows"][1]["layers"]) == found["rows"][1]["states"] == 6
    low, high = found["rows"][0]["ci_low"], found["rows"][0]["ci_high"]
    assert low < found["baseline"] < high


def test_a_gate_that_is_missed_ends_with_one(last, tiny, data):
    arguments = ("sweep", tiny, "--data", data, "--ratios", "0,0.9", "--methods", "uniform-hinf", "-q")
    _, out, _ = last(*arguments, "--json")
    worst = max(row["drop"] for row in document(out)["rows"])
    assert last(*arguments, "--fail-over", max(worst, 0) + 0.001)[0] == 0
    if worst > 0:
        assert last(*arguments, "--fail-over", worst - 1e-6)[0] == 1


def test_max_drop_never_returns_a_model_that_misses_the_bound(last, tiny, data):
    code, out, err = last("prune", tiny, "--max-drop", "0.05", "--data", data, "--out", "s.safetensors", "--json")
    assert code == 0, err
    search = document(out)["search"]
    assert search["drop"] <= 0.05
    assert search["steps"]
    _, evaluated, _ = last("eval", "s.safetensors", "--data", data, "--json")
    assert document(evaluated)["value"] == pytest.approx(search["value"])
    assert search["baseline"] - document(evaluated)["value"] <= 0.05 + 1e-12


def test_dry_run_says_everything_and_writes_nothing(last, tiny):
    before = sorted(path.name for path in tiny.parent.iterdir())
    code, out, _ = last("prune", tiny, "--ratio", "0.5", "--out", "small.safetensors", "--dry-run", "--json")
    assert code == 0
    found = document(out)
    assert found["out"] is None
    assert found["dry_run"] is True
    assert sorted(path.name for path in tiny.parent.iterdir()) == before
    last("prune", tiny, "--ratio", "0.5", "--out", "small.safetensors", "-q")
    assert tiny.with_name("small.safetensors").stat().st_size == pytest.approx(found["bytes_after"], rel=0.2)


def test_convert_there_and_back_gives_the_same_bytes(last, tiny):
    for out in ("a.msgpack", "b", "c.safetensors"):
        source = {"a.msgpack": tiny, "b": "a.msgpack", "c.safetensors": "b"}[out]
        code, _, err = last("convert", source, out, "-q")
        assert code == 0, err
    with containers.open_reader(tiny) as first, containers.open_reader(tiny.with_name("c.safetensors")) as second:
        assert set(first.tensors) == set(second.tensors)
        for name in first.tensors:
            assert first.read(name).tobytes() == second.read(name).tobytes()
    _, before, _ = last("inspect", tiny, "--json")
    _, after, _ = last("inspect", "c.safetensors", "--json")
    assert {k: v["value"] for k, v in document(before)["config"].items()} == {
        k: v["value"] for k, v in document(after)["config"].items()
    }


def test_bench_measures_both_in_turns(last, tiny):
    last("prune", tiny, "--ratio", "0.5", "--out", "small.safetensors", "-q")
    code, out, err = last("bench", tiny, "small.safetensors", "--repeats", "3", "--length", "16", "--json")
    assert code == 0, err
    found = document(out)
    assert found["original"]["latency"] > 0
    assert found["pruned"]["states"] < found["original"]["states"]
    width, features, outputs = 4, 3, 2
    # the gate and D of each layer
    around = features * width + 2 * (width * width + width) + width * outputs
    for run in (found["original"], found["pruned"]):
        assert [step["batch_size"] for step in run["steps"]] == [1, 32]
        assert all(0 < step["latency_low"] <= step["latency"] <= step["latency_high"] for step in run["steps"])
        assert run["step_latency"] == run["steps"][-1]["latency"]
        # λx takes four products, B u and C x two for each input and output
        assert run["state_multiply_adds"] == run["states"] * (4 + 4 * width)
        assert run["multiply_adds"] == around + run["state_multiply_adds"]
        assert run["state_bytes"] == 8 * run["states"]
        assert run["peak_memory"] > 0
        assert run["memory_kind"]
    assert [one["batch_size"] for one in found["step_speedups"]] == [1, 32]
    assert found["notes"] == []


def test_a_model_that_reads_from_both_ends_has_no_steps_and_says_so(last, tiny):
    write_s5(tiny.with_name("both.safetensors"), bidirectional=True)
    arguments = ("both.safetensors", "both.safetensors", "--repeats", "1", "--length", "16", "--json")
    code, out, err = last("bench", *arguments)
    assert code == 0, err
    found = document(out)
    (note,) = found["notes"]
    assert note == "both.safetensors is not run step by step: its layers read the sequence from both ends."
    assert note in err
    assert found["step_speedups"] is None
    for run in (found["original"], found["pruned"]):
        assert (run["steps"], run["step_latency"], run["state_bytes"]) == (None, None, None)
        assert run["state_multiply_adds"] == 2 * run["states"] * (4 + 4 * 4)


@pytest.mark.parametrize("form", ["--csv", "--markdown"])
def test_other_forms_carry_every_row(last, tiny, data, form):
    code, out, _ = last("sweep", tiny, "--data", data, "--ratios", "0,0.5", form, "-q")
    assert code == 0
    assert sum("50" in line or "0.5" in line for line in out.splitlines()) >= 1
    assert last("sweep", tiny, "--data", data, "--json", "--csv")[0] == 2


def test_verify_finds_a_changed_weight(last, tiny):
    last("prune", tiny, "--ratio", "0.4", "--out", "small.safetensors", "-q")
    path = tiny.with_name("small.safetensors")
    with containers.open_reader(path) as reader:
        arrays = {name: reader.read(name).copy() for name in reader.tensors}
        metadata = dict(reader.metadata)
    name = next(name for name in arrays if name.endswith("layers_1/seq/C"))
    arrays[name][0, 0, 0] += 0.5
    sources = [containers.TensorSource.of(key, value) for key, value in arrays.items()]
    containers.write(tiny.with_name("bad.safetensors"), sources, metadata=metadata)
    code, out, _ = last("verify", tiny, "bad.safetensors", "--json")
    assert code == 1
    assert document(out)["ok"] is False


def test_verify_of_another_original_fails(last, tiny):
    last("prune", tiny, "--ratio", "0.4", "--out", "small.safetensors", "-q")
    write_s5(tiny.with_name("other.safetensors"), seed=9)
    code, out, _ = last("verify", "other.safetensors", "small.safetensors")
    assert code == 1
    assert "sha256" in out


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "obs"),
        ("--method", "obs", "--refit", "sequential"),
        ("--method", "obs-sensitivity"),
        ("--method", "balanced"),
        pytest.param(("--method", "aire", "--refit", "poles", "--match-output"), marks=pytest.mark.slow),
    ],
    ids=lambda options: "+".join(word.strip("-") for word in options[1:]),
)
def test_every_kind_of_reduction_is_written_and_verified(last, tiny, data, options):
    arguments = ("--calibration", data, "--data", data, "--ratio", "0.4", "--out", "small.safetensors")
    code, out, err = last("prune", tiny, *options, *arguments, "--json", "-q")
    assert code == 0, err
    found = document(out)
    assert found["states_after"] <= 6
    assert found["measured"]["max_difference"] > 0
    code, out, err = last("verify", tiny, "small.safetensors", "--data", data, "--json")
    assert code == 0, out
    assert document(out)["max_output_difference"] == pytest.approx(found["measured"]["max_difference"], rel=1e-2)


def test_refits_compared_in_one_sweep(last, tiny, data):
    arguments = ("--data", data, "--calibration", data, "--ratios", "0.5", "--methods", "last,obs,balanced")
    code, out, err = last("sweep", tiny, *arguments, "--refit", "none,h2,calibrated", "--certify", "--json", "-q")
    assert code == 0, err
    rows = document(out)["rows"]
    pairs = [(row["method"], row["refit"]) for row in rows]
    assert pairs == [(m, r) for m in ("last", "obs") for r in ("none", "h2", "calibrated")] + [
        ("balanced", "none"),
        ("balanced", "h2"),
    ]
    errors = {pair: [layer["h2_error"] for layer in row["certificates"]] for pair, row in zip(pairs, rows)}
    assert all(h2 <= none + 1e-9 for h2, none in zip(errors["last", "h2"], errors["last", "none"]))


def test_significance_asks_more_than_the_point_estimate(last, tiny, data):
    arguments = ("prune", tiny, "--max-drop", "0.05", "--data", data, "--dry-run", "--json", "-q")
    _, plain, _ = last(*arguments)
    code, strict, _ = last(*arguments, "--significance", "0.05")
    if code == 0:
        assert document(strict)["states_after"] >= document(plain)["states_after"]
    else:
        assert code == 1


def test_shards_are_written_and_read_back(last, tiny, data):
    code, _, err = last("convert", tiny, "folder", "--shard-size", "1kB", "-q")
    assert code == 0, err
    assert len(list(tiny.with_name("folder").glob("*.safetensors"))) > 1
    code, out, _ = last("prune", "folder", "--ratio", "0.5", "--out", "small.safetensors", "--json", "-q")
    assert code == 0
    code, out, _ = last("verify", tiny, "small.safetensors", "--json")
    checks = {check["name"]: check["ok"] for check in document(out)["checks"]}
    assert checks.pop("record") is False  # made from the folder, not from the single file
    assert all(checks.values())
