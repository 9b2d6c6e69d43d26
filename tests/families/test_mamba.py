"""Mamba 1 and 2 against their recurrences written out, and against the mistakes that are easily made with them."""

import json
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from lastcli import api, containers
from lastcli.containers import inputs
from lastcli.containers.base import TensorSource
from lastcli.containers.safetensors.reader import SafetensorsReader
from lastcli.engine import deferred as engine_deferred
from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import Reduction
from lastcli.engine.selective import drive
from lastcli.engine.selective.shapes import truncate
from lastcli.errors import InputError, OutputError, UnsupportedModelError, UsageError
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import in_precision, model_outputs
from lastcli.families import family_named
from lastcli.families.mamba.upstream import with_state_size
from lastcli.families.parts import deferred
from lastcli.model import checkpoint as checkpoint_module
from lastcli.model.opening import open_checkpoint
from lastcli.reduction.compressor import Compressor
from lastcli.verbs.shared import remade
from tests.builders.mamba import language_model, logits, mamba1, mamba1_heads_mixer, rms, stack
from tests.builders.named import Arrays, infos

pytestmark = pytest.mark.usefixtures("short_searches")

TOKENS = np.random.default_rng(5).integers(0, 11, (3, 21), dtype=np.int32)


def written(folder, arrays: Arrays, config=None, name="model.safetensors"):
    folder.mkdir(exist_ok=True)
    sources = [TensorSource.of(key, array) for key, array in arrays.items()]
    containers.write(folder / name, sources, metadata={"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder / name


def outputs(checkpoint, systems=None, x=TOKENS):
    forward = checkpoint.require_forward()
    return np.concatenate(list(model_outputs(forward, checkpoint.params, systems or checkpoint.systems, Split(x))))


def model(tmp_path, version):
    arrays = language_model(np.random.default_rng(version), version)
    flags = {} if version == 1 else {"groups": 2}
    return arrays, open_checkpoint(written(tmp_path / "a", arrays), flags=flags)


@pytest.mark.parametrize("version", [1, 2])
def test_logits_are_those_of_the_recurrence(tmp_path, version):
    arrays, checkpoint = model(tmp_path, version)
    wanted = np.stack([logits(arrays, row, version) for row in TOKENS])
    np.testing.assert_allclose(outputs(checkpoint), wanted, atol=2e-4)


@pytest.mark.parametrize("series", [1, 2])
def test_several_sequences_side_by_side_are_read_at_their_last_steps(tmp_path, series):
    arrays = stack(np.random.default_rng(0), series=series)
    checkpoint = open_checkpoint(written(tmp_path / "a", arrays))
    x = np.random.default_rng(1).normal(size=(4, series, 9, 3)).astype("f4")
    wanted = []
    for example in x:
        ends = []
        for sequence in example:
            h = sequence @ arrays["input_layer.weight"].T + arrays["input_layer.bias"]
            for layer in range(2):
                u = rms(h, arrays[f"layers.{layer}.norm.weight"])
                h = h + mamba1(arrays, f"layers.{layer}.mixer.", u)
            ends.append(rms(h, arrays["norm_f.weight"])[-1])
        wanted.append(arrays["head.weight"] @ np.concatenate(ends) + arrays["head.bias"])
    np.testing.assert_allclose(outputs(checkpoint, x=x if series > 1 else x[:, 0]), wanted, atol=2e-4)
    if series > 1:
        with pytest.raises(InputError, match="2 sequences side by side"):
            outputs(checkpoint, x=x[:, :1])


@pytest.mark.parametrize("version", [1, 2])
def test_a_step_at_a_time_says_the_same(tmp_path, version):
    _, checkpoint = model(tmp_path, version)
    forward = checkpoint.require_forward()
    systems = in_precision(forward, checkpoint.systems)
    cache, found = forward.start(systems, len(TOKENS)), []
    for t in range(TOKENS.shape[1]):
        said, cache = forward.step(checkpoint.params, systems, cache, TOKENS[:, t])
        found.append(np.asarray(said))
    np.testing.assert_allclose(np.stack(found, axis=1), outputs(checkpoint), atol=2e-4)


def test_a_step_finds_its_parameters_behind_a_wrapper(tmp_path):
    arrays = {f"module.{name}": array for name, array in language_model(np.random.default_rng(1)).items()}
    checkpoint = open_checkpoint(written(tmp_path / "a", arrays))
    forward = checkpoint.require_forward()
    systems = in_precision(forward, checkpoint.systems)
    said, _ = jax.eval_shape(forward.step, checkpoint.params, systems, forward.start(systems, 3), TOKENS[:, 0])
    assert said.shape == (3, 11)


def kept_of(checkpoint, version):
    rows = [[[0, 2, 3]], [[1, 2, 4]]] if version == 1 else [[[0, 2, 3], [1, 2, 4]], [[0, 1, 4], [2, 3, 4]]]
    return [np.array(row) for row in rows]


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_written_is_the_masked_model_and_the_recurrence_agrees(tmp_path, version):
    _, checkpoint = model(tmp_path, version)
    reductions = [
        engine_of(system).truncate(system, kept)
        for system, kept in zip(checkpoint.systems, kept_of(checkpoint, version))
    ]
    masked = [engine_of(s).embed(s, r) for s, r in zip(checkpoint.systems, reductions)]
    for size in (3, 5):  # compact, and filled up with inert states
        new = {name: checkpoint.read(name) for name in checkpoint.reader.tensors}
        for layer, reduction in zip(checkpoint.layers, reductions):
            new |= checkpoint.family.rebuild(layer, checkpoint.config, checkpoint.read, reduction, size)
        wanted = np.stack([logits(new, row, version) for row in TOKENS])
        np.testing.assert_allclose(outputs(checkpoint, masked), wanted, atol=2e-4)


def test_a_zero_in_A_log_is_no_removed_state():
    """A_log = 0 is A = -1: the state decays fast, but it is driven and read as before."""
    arrays = language_model(np.random.default_rng(3), layers=1)
    base = "backbone.layers.0.mixer."
    A_log, x_proj = arrays[base + "A_log"].copy(), arrays[base + "x_proj.weight"].copy()
    A_log[:, 2] = 0
    x_proj[[2 + 2, 2 + 5 + 2]] = 0
    zeroed, removed = {**arrays, base + "A_log": A_log}, {**arrays, base + "x_proj.weight": x_proj}
    difference = np.abs(logits(zeroed, TOKENS[0]) - logits(removed, TOKENS[0])).max()
    assert difference > 1e-3


def test_a_model_without_its_last_norm_or_head_is_not_known():
    family = family_named("mamba")
    for arrays, gone in (
        (language_model(np.random.default_rng(0)), "norm_f"),
        (stack(np.random.default_rng(0)), "head."),
    ):
        tensors = infos({name: a for name, a in arrays.items() if gone not in name})
        config = {option.key: option.default for option in family.options}
        assert family.forward(tensors, config, family.layers(tensors, config)) is None
        assert family.forward(infos(arrays), config, family.layers(infos(arrays), config)) is not None


def test_a_file_without_mixers_proves_nothing():
    family = family_named("mamba")
    tensors = infos({"layers.0.A_log": np.zeros((8, 5), "f4")})
    assert not family.match(tensors).layers
    assert family.infer(tensors) == {}
    assert family.idle(tensors) == {"task", "pooling"}


def test_sizes_that_kernels_are_written_for_need_no_note():
    family = family_named("mamba")
    assert family.size_note([16, 64]) is None
    assert "State counts of 8, 24:" in family.size_note([24, 8, 16])


def test_rows_that_make_no_B_and_C_and_factors_that_are_not_five_are_refused():
    family, arrays = family_named("mamba2"), language_model(np.random.default_rng(2), 2)
    config = {**{option.key: option.default for option in family.options}, "groups": 3}
    with pytest.raises(UnsupportedModelError, match="does not divide into B and C; say how many groups"):
        family.layers(infos(arrays), config)
    config |= {"groups": 2, "row_scales": "1,2,3"}
    layer = family.layers(infos(arrays), config)[0]
    with pytest.raises(UsageError, match="row_scales has 3 numbers; it takes one each"):
        np.asarray(family.system(layer, config, arrays.__getitem__).to_z)


def test_a_configuration_that_says_no_size_says_it_afterwards():
    assert with_state_size({"model_type": "mamba"}, 8) == {"model_type": "mamba", "state_size": 8}


def test_B_and_C_go_in_pairs(tmp_path):
    """Rows of B and of C ranked apart leave states that are driven by one index and read by another."""
    _, checkpoint = model(tmp_path, 1)
    system = checkpoint.systems[0]
    pairs = engine_of(system).truncate(system, np.array([[0, 2, 3]])).system
    apart = pairs.replace(to_C=system.to_C[[1, 2, 4]])
    u = np.random.default_rng(0).normal(size=(2, 15, 6))
    masked = system.replace(to_B=system.to_B * np.array([1, 0, 1, 1, 0])[:, None])
    np.testing.assert_allclose(engine_of(system).output(pairs, u), engine_of(system).output(masked, u), atol=1e-10)
    assert np.abs(engine_of(system).output(apart, u) - engine_of(system).output(masked, u)).max() > 1e-2


def test_norms_over_the_states_are_refused_and_then_measured(tmp_path):
    arrays = language_model(np.random.default_rng(4), layers=1)
    for role, size in (("dt", 2), ("b", 5), ("c", 5)):
        arrays[f"backbone.layers.0.mixer.{role}_layernorm.weight"] = np.ones(size, "f4")
    path = written(tmp_path / "a", arrays)
    with pytest.raises(UnsupportedModelError, match="mean squares run over the states"):
        api.prune(path, tmp_path / "b.safetensors", ratio=0.4, method="uniform-magnitude")
    found = api.prune(path, tmp_path / "b.safetensors", ratio=0.4, method="uniform-magnitude", allow_inexact=True)
    assert found.states_after == 3
    assert api.verify(path, tmp_path / "b.safetensors").ok


def test_falcon_is_known_by_its_configuration_alone(tmp_path):
    config = {"model_type": "falcon_mamba", "state_size": 5, "mixer_rms_eps": 1e-6}
    path = written(tmp_path / "a", language_model(np.random.default_rng(4), layers=1), config)
    with pytest.raises(UnsupportedModelError, match="FalconMamba"):
        api.prune(path.parent, tmp_path / "b", ratio=0.4, method="uniform-magnitude")


@pytest.mark.parametrize("key", ["state_size", "mamba_d_state", "ssm_state_size"])
def test_a_stale_configuration_is_refused(tmp_path, key):
    for version, more in ((1, {}), (2, {"n_groups": 2})):
        folder = written(tmp_path / str(version), language_model(np.random.default_rng(0), version), {key: 16, **more})
        with pytest.raises(InputError, match="state_size is"):
            open_checkpoint(folder.parent)


def test_the_configuration_is_written_with_the_tensors(tmp_path):
    config = {"model_type": "mamba", "state_size": 5, "layer_norm_epsilon": 1e-5, "vocab_size": 11}
    folder = written(tmp_path / "a", language_model(np.random.default_rng(0)), config).parent
    (folder / "tokenizer.json").write_text("{}")
    found = api.prune(folder, tmp_path / "b", states=6, method="uniform-magnitude")
    assert json.loads((tmp_path / "b" / "config.json").read_text()) == {**config, "state_size": 3}
    assert (tmp_path / "b" / "tokenizer.json").read_text() == "{}"
    assert found.layout == "uniform"
    assert found.state_bytes_after < found.state_bytes_before
    assert api.verify(folder, tmp_path / "b").ok
    again = api.prune(folder, tmp_path / "b", states=4, method="uniform-magnitude", force=True)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["state_size"] == 2
    assert again.states_after == 4


def test_a_configuration_inside_a_torch_file_is_read_and_written_with_the_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = {name: torch.tensor(a) for name, a in language_model(np.random.default_rng(0)).items()}
    config = {"d_model": 6, "d_state": 5, "note": "kept"}
    torch.save({"model_state_dict": arrays, "config": config, "epoch": 3}, tmp_path / "a.pt")
    assert open_checkpoint(tmp_path / "a.pt").config["state_size"] == 5
    api.prune(tmp_path / "a.pt", tmp_path / "b.pt", states=6, method="uniform-magnitude")
    assert torch.load(tmp_path / "b.pt")["config"] == {**config, "d_state": 3}
    assert api.verify(tmp_path / "a.pt", tmp_path / "b.pt").ok
    torch.save({"model_state_dict": arrays, "config": {**config, "d_state": 16}}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="state_size is 16"):
        open_checkpoint(tmp_path / "c.pt")


def test_mamba_ssm_keeps_the_size_in_its_inner_configuration(tmp_path):
    config = {"d_model": 6, "n_layer": 2, "ssm_cfg": {"layer": "Mamba2", "ngroups": 2}}
    folder = written(tmp_path / "a", language_model(np.random.default_rng(0), 2), config).parent
    api.prune(folder, tmp_path / "b", states=12, method="uniform-magnitude")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["ssm_cfg"]["d_state"] == 3


def test_layers_of_their_own_sizes_are_refused_where_one_configuration_serves_all(tmp_path):
    folder = written(tmp_path / "a", language_model(np.random.default_rng(0)), {"state_size": 5}).parent
    with pytest.raises(UnsupportedModelError, match="one state size"):
        api.prune(folder, tmp_path / "b", states=5, method="global-magnitude", layout="ragged")
    found = api.prune(folder, tmp_path / "b", states=5, method="global-magnitude", layout="padded")
    assert {layer.states for layer in found.layers} != {found.layers[0].states}
    checkpoint = open_checkpoint(tmp_path / "b")
    assert len({layer.states for layer in checkpoint.layers}) == 1
    assert api.verify(folder, tmp_path / "b").ok


def test_multiples_of_states(tmp_path):
    arrays = language_model(np.random.default_rng(0), N=16)
    path = written(tmp_path / "a", arrays)
    found = api.prune(path, tmp_path / "b.safetensors", ratio=0.3, method="uniform-magnitude", states_multiple=8)
    assert [layer.states for layer in found.layers] == [8, 8]
    assert any("multiple of 8" in note for note in found.notes)
    assert any("Triton" in note for note in found.notes)


@pytest.mark.parametrize("spelling", ["ssm.", "mixer.ssm."])
def test_copies_with_a_recurrence_of_its_own(tmp_path, spelling):
    plain = language_model(np.random.default_rng(0), layers=1)
    inner = ("A_log", "D", "x_proj", "dt_proj")

    def renamed(name):
        head, _, leaf = name.partition("mixer.")
        if not leaf:
            return name
        return head + (spelling + leaf if leaf.startswith(inner) else spelling.removesuffix("ssm.") + leaf)

    arrays = {renamed(name): array for name, array in plain.items()}
    checkpoint = open_checkpoint(written(tmp_path / "a", arrays))
    np.testing.assert_allclose(outputs(checkpoint)[0], logits(plain, TOKENS[0]), atol=2e-4)


def test_hybrids_are_inspected_and_scored(tmp_path):
    arrays = {
        name.replace("mixer", "mamba"): array for name, array in language_model(np.random.default_rng(0), 2).items()
    }
    arrays["backbone.layers.5.self_attn.q_proj.weight"] = np.ones((6, 6), "f4")
    path = written(tmp_path / "a", arrays, {"model_type": "bamba", "mamba_d_state": 5, "mamba_n_groups": 2})
    assert [layer.states for layer in api.inspect(path).layers] == [5, 5]
    assert len(api.score(path, method="uniform-magnitude").layers) == 2
    assert open_checkpoint(path).forward is None


@pytest.mark.parametrize("version", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("refit", ["sequential", "matched"])
def test_refits_of_the_whole_model(tmp_path, version, refit, monkeypatch):
    """What the reduced model says comes nearer to the original; verify computes it anew from the same inputs."""
    from lastcli.engine.selective import fit
    from lastcli.reduction import refits

    monkeypatch.setattr(refits, "MATCH_STEPS", 50)
    monkeypatch.setattr(fit.fit_layer, "__kwdefaults__", {"steps": 60, "seed": 0})
    folder = written(
        tmp_path / "a", language_model(np.random.default_rng(version), version), {"n_groups": 2, "state_size": 5}
    ).parent
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(1).integers(0, 11, (40, 12), dtype=np.int32))
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(2).integers(0, 11, (40, 12), dtype=np.int32))
    more = {"refit": "calibrated", "match_output": True} if refit == "matched" else {"refit": "sequential"}
    common = {"ratio": 0.6, "data": tmp_path / "d.npz", "calibration": tmp_path / "c.npz"}
    plain = api.prune(folder, method="contribution", dry_run=True, **common)
    found = api.prune(folder, tmp_path / "b", method="obs", **more, **common)
    assert found.measured.mean_difference < plain.measured.mean_difference
    assert found.measured.metric == "perplexity"
    said = api.verify(folder, tmp_path / "b", calibration=tmp_path / "c.npz")
    assert said.ok, [check for check in said.checks if not check.ok]


def test_baselines_at_the_mean_step_carry_a_warning(tmp_path):
    path = written(tmp_path / "a", language_model(np.random.default_rng(0)))
    found = api.prune(path, ratio=0.4, method="last", dry_run=True)
    assert any("baselines only" in note and "0.1560 nats by last" in note for note in found.notes)
    with pytest.raises(UnsupportedModelError, match="white noise"):
        api.prune(path, ratio=0.4, method="obs", refit="h2", dry_run=True)
    with pytest.raises(UnsupportedModelError, match="no fixed poles"):
        api.prune(path, ratio=0.4, method="balanced", dry_run=True)


def test_a_reduction_that_is_no_gather_is_seen(tmp_path):
    path = written(tmp_path / "a", language_model(np.random.default_rng(0)))
    api.prune(path, tmp_path / "b.safetensors", states=6, method="uniform-magnitude")
    with containers.open_reader(tmp_path / "b.safetensors") as reader:
        arrays = {name: reader.read(name).copy() for name in reader.tensors}
        metadata = dict(reader.metadata)
    arrays["backbone.layers.0.mixer.x_proj.weight"][3, 0] += 1e-3  # a row of B
    sources = [TensorSource.of(key, array) for key, array in arrays.items()]
    containers.write(tmp_path / "c.safetensors", sources, metadata=metadata)
    assert not api.verify(path, tmp_path / "c.safetensors").ok


def test_a_kept_state_stays_bit_for_bit(tmp_path):
    _, checkpoint = model(tmp_path, 1)
    layer, kept = checkpoint.layers[0], np.array([[1, 3]])
    system = engine_of(checkpoint.systems[0]).truncate(checkpoint.systems[0], kept).system
    new = checkpoint.family.rebuild(layer, checkpoint.config, checkpoint.read, Reduction(kept, system), 2)
    x_proj = checkpoint.read(layer.tensors["x_proj"])
    np.testing.assert_array_equal(new[layer.tensors["x_proj"]], x_proj[[0, 1, 3, 5, 8, 10]])
    np.testing.assert_array_equal(new[layer.tensors["A_log"]], checkpoint.read(layer.tensors["A_log"])[:, [1, 3]])


@pytest.mark.parametrize(
    ("version", "sizes"),
    [
        (1, {"d_inner": 8, "dt_rank": 2, "state_bytes": 4 * (8 * 5 + 8 * 3)}),
        (2, {"d_inner": 8, "groups": 2, "head_dim": 2, "state_bytes": 4 * (8 * 5 + (8 + 2 * 2 * 5) * 3)}),
    ],
)
def test_inspect_says_the_sizes_inside(tmp_path, version, sizes):
    """States of d channels and the window of K - 1 = 3 past inputs of the convolution's channels, as float32."""
    path = written(tmp_path / "a", language_model(np.random.default_rng(0), version))
    found = api.inspect(path, model={} if version == 1 else {"groups": 2})
    layer = found.to_json()["layers"][0]
    assert {key: layer[key] for key in sizes} == sizes
    assert layer["states"] == 5
    assert "inside" not in layer
    assert found.state_bytes == 2 * sizes["state_bytes"]


def test_a_tokenizer_that_would_be_lost_is_seen_before_the_work(tmp_path, monkeypatch):
    folder = written(tmp_path / "a", language_model(np.random.default_rng(0)), {"state_size": 5}).parent
    api.prune(folder, tmp_path / "b", states=6, method="uniform-magnitude")
    (tmp_path / "b" / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(Compressor, "reduce", lambda *_, **__: pytest.fail("the work was begun"))
    with pytest.raises(OutputError, match=r"holds tokenizer\.json, which the new checkpoint does not bring"):
        api.prune(folder, tmp_path / "b", states=4, method="uniform-magnitude", force=True)
    monkeypatch.setattr(containers, "write", lambda *_, **__: pytest.fail("the work was begun"))
    with pytest.raises(OutputError, match=r"holds tokenizer\.json"):
        api.convert(folder, tmp_path / "b", force=True, shard_bytes=2**20)
    assert (tmp_path / "b" / "tokenizer.json").read_text() == "{}"


def test_what_drives_the_states_is_fitted_by_least_squares(tmp_path):
    """Beside the same problem with every feature computed as the answer of a layer that one map alone drives."""
    _, checkpoint = model(tmp_path, 1)
    original = checkpoint.systems[0]
    u = np.random.default_rng(0).normal(size=(6, 30, 6))
    target, weights = engine_of(original).output(original, u), np.ones(u.shape[:2])
    weights[0, 20:] = 0
    reduced = engine_of(original).truncate(original, np.array([[0, 2, 3]])).system
    maps = np.concatenate([original.to_C, original.to_B, original.to_step])
    signals = lambda: iter([(u, target, weights)])  # noqa: E731

    def answer(to_B):
        return engine_of(reduced).output(reduced.replace(to_B=to_B), u)[weights > 0].reshape(-1)

    silent = answer(np.zeros_like(reduced.to_B))
    features = []
    for state in range(3):
        for row in maps:
            alone = np.zeros_like(reduced.to_B)
            alone[state] = row
            features.append(answer(alone) - silent)
    wanted = target[weights > 0].reshape(-1) - silent
    T = np.linalg.lstsq(np.array(features).T, wanted, rcond=None)[0]
    least = ((np.array(features).T @ T - wanted) ** 2).sum()
    found = answer(drive._drive(reduced, maps, signals) @ maps)
    error = ((found - silent - wanted) ** 2).sum()
    before = ((answer(reduced.to_B) - silent - wanted) ** 2).sum()
    assert least <= error * (1 + 1e-9)
    assert error < least + 0.05 * (before - least)
    fitted = drive.fit_drive(original, reduced, signals)
    assert ((engine_of(fitted).output(fitted, u) - target)[weights > 0] ** 2).sum() < error


def test_a_refit_of_B_is_written_and_computed_anew(tmp_path):
    folder = written(tmp_path / "a", language_model(np.random.default_rng(1), layers=1), {"state_size": 5}).parent
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(1).integers(0, 11, (20, 12), dtype=np.int32))
    common = {"ratio": 0.6, "data": tmp_path / "c.npz", "calibration": tmp_path / "c.npz", "method": "obs"}
    plain = api.prune(folder, dry_run=True, **common)
    found = api.prune(folder, tmp_path / "b", refit="calibrated+B", **common)
    assert found.measured.mean_difference < plain.measured.mean_difference
    said = api.verify(folder, tmp_path / "b", calibration=tmp_path / "c.npz")
    assert said.ok, [check for check in said.checks if not check.ok]
    A_log = "backbone.layers.0.mixer.A_log"
    with open_checkpoint(folder) as before, open_checkpoint(tmp_path / "b") as after:
        kept = np.asarray(found.layers[0].kept)[0]
        np.testing.assert_array_equal(after.read(A_log), before.read(A_log)[:, kept])
    other = written(tmp_path / "c", language_model(np.random.default_rng(2), 2), {"n_groups": 2}).parent
    with pytest.raises(UnsupportedModelError, match="Mamba 1 has"):
        api.prune(other, dry_run=True, refit="calibrated+B", **common)


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_figures_in_the_warning_are_those_of_the_page(name):
    """`python -m benchmarks.mamba --pages docs/families` writes the page; the warning quotes it."""
    family = family_named(name)
    page = (Path(__file__).parents[2] / family.page).read_text()
    table = page[page.index("<!-- benchmark: begin -->") : page.index("<!-- benchmark: end -->")]
    figures = re.findall(r"\d+\.\d+", family.frozen_figures)
    assert len(figures) >= 2
    for figure in figures:
        assert f"| {figure} ±" in table


@pytest.mark.parametrize("version", [1, 2])
def test_layers_of_a_sharded_folder_are_not_held_together(tmp_path, version, monkeypatch):
    """Fourteen layers of 1.6 MB: who prunes without inputs holds a few of them, and writes the same bytes."""
    sizes = {"H": 256, "d": 512, "N": 4}
    arrays = language_model(np.random.default_rng(0), version, layers=14, **sizes)
    sources = [TensorSource.of(name, array) for name, array in arrays.items()]
    containers.write(tmp_path / "a", sources, metadata={}, shard_bytes=2**22)
    (tmp_path / "a" / "config.json").write_text(json.dumps({"state_size": 4, "n_groups": 2}))
    pruned = {"ratio": 0.5, "method": "uniform-magnitude", "shard_bytes": 2**22}
    api.prune(tmp_path / "a", tmp_path / "eager", **pruned)
    for module in (engine_deferred, remade, checkpoint_module):
        monkeypatch.setattr(module, "KEPT_BYTES", 2**19)
    # the layers are small, so what counts as small is too, and what is read at once
    monkeypatch.setattr(inputs, "PIECE", 2**16)
    monkeypatch.setattr(deferred, "LARGE", 2**13)
    monkeypatch.setattr(remade, "SMALL", 2**13)
    tracemalloc.start()
    try:
        api.score(tmp_path / "a", method="last")
        api.prune(tmp_path / "a", tmp_path / "b", **pruned)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    layer = sum(array.nbytes for name, array in arrays.items() if ".layers.7." in name)
    assert 1.4e6 < layer < 1.8e6
    # one as it is read, one as it becomes, parts of it in other precisions; what is kept, and small vectors
    assert peak < 4 * layer + 3 * 2**19, f"{peak / layer:.1f} layers"
    for file in sorted((tmp_path / "eager").iterdir()):
        assert (tmp_path / "b" / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("version", [1, 2])
def test_what_stays_of_a_layer_is_loaded_once(tmp_path, version, monkeypatch):
    """To see whether it is finite; shapes are the header's, and what is copied goes through in pieces."""
    path = written(tmp_path / "a", language_model(np.random.default_rng(version), version), {"n_groups": 2})
    for module in (engine_deferred, remade, checkpoint_module):
        monkeypatch.setattr(module, "KEPT_BYTES", 0)
    for module in (deferred, remade):
        monkeypatch.setattr(module, "LARGE" if module is deferred else "SMALL", 0)
    loaded, load = Counter(), SafetensorsReader.load

    def counted(self, name):
        loaded[name] += self.path == path
        return load(self, name)

    monkeypatch.setattr(SafetensorsReader, "load", counted)
    api.prune(path, tmp_path / "b.safetensors", ratio=0.5, method="uniform-magnitude")
    large = [name for name in loaded if name.endswith(("out_proj.weight", "in_proj.weight"))]
    stays = [name for name in large if version == 1 or "out_proj" in name]
    assert len(stays) >= 2
    assert {name: loaded[name] for name in stays} == dict.fromkeys(stays, 1)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "heads"])
def test_deferred_layers_compute_as_those_in_memory(tmp_path, name, monkeypatch):
    """With every array deferred and none kept, systems, reductions and tensors are the same to the last bit."""
    rng = np.random.default_rng(3)
    heads = name == "heads"
    arrays = mamba1_heads_mixer(rng, "a.mamba.") if heads else language_model(rng, 1 if name == "mamba" else 2)
    path = written(tmp_path / "a", arrays, {"n_groups": 2})

    def taken() -> list[list[np.ndarray]]:
        with open_checkpoint(path) as checkpoint:
            found = []
            for system in checkpoint.systems:
                kept = np.tile(np.array([0, 2]), (system.sets, 1))
                for one in (system, truncate(system, kept).system):
                    found.append([np.asarray(array) for array in vars(one).values() if hasattr(array, "shape")])
            return found

    plain = taken()
    monkeypatch.setattr(deferred, "LARGE", 0)
    monkeypatch.setattr(engine_deferred, "KEPT_BYTES", 0)
    for one, other in zip(plain, taken(), strict=True):
        for first, second in zip(one, other, strict=True):
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("version", [1, 2])
def test_stages_are_taken_and_new_poles_refused_before_the_work(tmp_path, version):
    folder = written(tmp_path / "a", language_model(np.random.default_rng(version), version), {"n_groups": 2}).parent
    np.savez(tmp_path / "c.npz", x=np.zeros((4, 6), np.int32))
    found = api.prune(folder, ratio=0.6, method="last", steps=2, dry_run=True)
    assert {layer.states for layer in found.layers} == {2}
    with pytest.raises(UsageError, match="ranks by the tensors of the file"):
        api.prune(folder, ratio=0.6, method="uniform-magnitude", steps=2, dry_run=True)
    with pytest.raises(UnsupportedModelError, match="no fixed poles"):
        api.prune(folder, ratio=0.6, method="obs", refit="poles+match", calibration=tmp_path / "c.npz", dry_run=True)
