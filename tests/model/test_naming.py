"""Every family through every wrapper: the same layers, systems and model around them, written in the file's names."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lastcli import api, containers
from lastcli.containers.base import TensorSource
from lastcli.families import detect, family_named
from lastcli.families.base import Layer
from lastcli.model.description import Description
from lastcli.model.named import Named
from lastcli.model.naming import Naming
from lastcli.model.view import View, holds_model, without_holder
from tests.builders.equinox import equinox_model
from tests.builders.families import CASES, Case
from tests.builders.lru import minimal_lru, torch_model
from tests.builders.named import Arrays, infos
from tests.builders.s4d import s4d_model
from tests.builders.s5 import s5_checkpoint
from tests.builders.wrapped import PREFIXES, wrapped
from tests.families.rebuilding import config_of

EVERY = [pytest.param(name, case, id=f"{name}: {case.name}") for name, cases in CASES.items() for case in cases]
WRAPPERS = [(prefix, "") for prefix in PREFIXES] + [("", "_orig_mod"), ("model.", "module")]


def written(path: Path, arrays: Arrays, metadata: dict[str, str] | None = None) -> Path:
    sources = [TensorSource.of(name, array) for name, array in arrays.items()]
    containers.write(path, sources, metadata=metadata or {})
    return path


def plain(name: str) -> str:
    return re.sub(r"[/.]", "/", name).strip("/")


@pytest.mark.parametrize(("prefix", "inside"), WRAPPERS, ids=[f"{p}…{i}" for p, i in WRAPPERS])
@pytest.mark.parametrize(("name", "case"), EVERY)
def test_a_family_sees_its_own_names(name: str, case: Case, prefix: str, inside: str) -> None:
    arrays = case.build(np.random.default_rng(7))
    if any("[" in tensor for tensor in arrays):
        pytest.skip("the names of jax.tree_util.keystr have no parts to put a wrapper between")
    around = wrapped(arrays, prefix, inside=inside)
    tensors = infos(around)
    naming = Naming.of(tensors)
    view, files = naming.view(tensors)
    assert detect(view).name == name
    family, own = Named(family_named(name), naming), family_named(name)
    config = config_of(own, arrays, **case.changes)
    assert config_of(family, around, **case.changes) == config
    layers, expected = family.layers(tensors, config), own.layers(infos(arrays), config)
    assert [layer.states for layer in layers] == [layer.states for layer in expected]
    for layer, other in zip(layers, expected, strict=True):
        assert layer.tensors.keys() == other.tensors.keys()
        assert set(layer.tensors.values()) <= set(around)
        assert plain(next(iter(layer.tensors.values()))).startswith(plain(layer.name) + "/") or layer.name == "layer"
        system = family.system(layer, config, around.__getitem__)
        np.testing.assert_array_equal(system.C, own.system(other, config, arrays.__getitem__).C)
    forward, alone = family.forward(tensors, config, layers), own.forward(infos(arrays), config, expected)
    assert (forward is None) == (alone is None)
    if forward is not None and alone is not None:
        assert set(forward.params) <= set(around)
        assert len(forward.params) == len(alone.params)
    assert set(files.values()) <= set(around)


MODELS: dict[str, Any] = {
    "lru (torch)": lambda rng: torch_model(rng),
    "lru (torch, biases)": lambda rng: torch_model(rng, bias=True, ff="MLP"),
    "lru (flax)": lambda rng: minimal_lru(rng),
    "s4d": s4d_model,
    "s5": lambda rng: s5_checkpoint(rng),
    "equinox": lambda rng: equinox_model(),
}


@pytest.mark.parametrize("model", MODELS)
def test_the_model_around_the_layers_answers_alike(model: str, tmp_path: Path) -> None:
    from lastcli.evaluation.data import Split
    from lastcli.evaluation.passes import model_outputs

    arrays = MODELS[model](np.random.default_rng(3))
    arrays = {name: a.astype("f4") if a.dtype == np.float64 else a for name, a in arrays.items()}

    def outputs(path: Path) -> np.ndarray:
        with api.open(path) as checkpoint:
            forward = checkpoint.require_forward()
            x = np.random.default_rng(0).normal(size=(2, 7, forward.features)).astype("f4")
            found = model_outputs(forward, checkpoint.params, checkpoint.systems, Split(x))
            return np.concatenate(list(found))

    wanted = outputs(written(tmp_path / "plain.safetensors", arrays))
    for i, (prefix, inside) in enumerate([*WRAPPERS[:1], *WRAPPERS[5:6], WRAPPERS[-2]]):
        got = outputs(written(tmp_path / f"{i}.safetensors", wrapped(arrays, prefix, inside=inside)))
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("prefix", ["foo.", "my.own."])
@pytest.mark.parametrize("model", MODELS)
def test_a_holder_of_any_name_is_taken_away_and_written_back(model: str, prefix: str, tmp_path: Path) -> None:
    arrays = MODELS[model](np.random.default_rng(3))
    plain = written(tmp_path / "plain.safetensors", arrays)
    held = written(tmp_path / "held.safetensors", wrapped(arrays, prefix))
    with api.open(plain) as one, api.open(held) as other:
        assert other.config == one.config
        assert [layer.states for layer in other.layers] == [layer.states for layer in one.layers]
        assert len(other.require_forward().params) == len(one.require_forward().params)
    api.prune(held, tmp_path / "small.safetensors", ratio=0.4)
    with containers.open_reader(tmp_path / "small.safetensors") as reader:
        assert list(reader.tensors) == list(wrapped(arrays, prefix))
    with api.open(tmp_path / "small.safetensors") as small:
        assert small.forward is not None
    assert api.verify(held, tmp_path / "small.safetensors").ok


def test_a_part_that_a_layer_alone_has_before_its_name_stays() -> None:
    tensors = infos({"foo.C": np.zeros(1), "foo.B": np.zeros(1)})
    assert Naming.of(tensors).roots == ()
    assert [naming.roots for naming in Naming.of(tensors).deeper(tensors)] == [("foo",)]


def test_a_holder_below_the_collections_of_flax_is_none_of_the_model(tmp_path: Path) -> None:
    arrays = s5_checkpoint(np.random.default_rng(0))
    held = {re.sub(r"^(params|batch_stats)/", r"\1/model/", name): a for name, a in arrays.items()}
    assert held.keys() != arrays.keys()
    with api.open(written(tmp_path / "m.safetensors", held)) as checkpoint:
        assert checkpoint.forward is not None
        assert checkpoint.layers[0].name.startswith("params/model/encoder/layers_0")


@pytest.mark.parametrize(("name", "prefix"), [*zip(CASES, (*PREFIXES, *PREFIXES))])
def test_what_is_pruned_keeps_the_names_and_the_bytes_around_the_layers(name: str, prefix: str, tmp_path: Path) -> None:
    case = CASES[name][0]
    arrays = wrapped(case.build(np.random.default_rng(7)), prefix, inside="_orig_mod" if name == "lru" else "")
    path, out = written(tmp_path / "m.safetensors", arrays), tmp_path / "small.safetensors"
    model = {"family": name, **case.changes}
    result = api.prune(path, out, ratio=0.4, model=model)
    assert result.states_after < result.states_before
    with containers.open_reader(out) as reader, api.open(path, model=model) as before:
        if name not in ("s4_dplr", "annotated_s4"):
            assert list(reader.tensors) == list(arrays)
        assert all(tensor.startswith(next(iter(arrays))[: len(prefix)]) for tensor in reader.tensors)
        for tensor in arrays.keys() - before.state_tensors:
            assert reader.read(tensor).tobytes() == arrays[tensor].tobytes(), tensor
    found = api.verify(path, out, model=model)
    assert found.ok, [check for check in found.checks if not check.ok]


def test_losses_metrics_and_counters_are_no_part_of_the_model_and_carried(tmp_path: Path) -> None:
    arrays = wrapped(torch_model(np.random.default_rng(0)), "model.") | {
        "criterion.weight": np.ones(3, "f4"),
        "train_accuracy.tp": np.zeros(3, "i8"),
        "n_averaged": np.array(7),
    }
    path, out = written(tmp_path / "m.safetensors", arrays), tmp_path / "small.safetensors"
    with api.open(path) as checkpoint:
        assert checkpoint.config["architecture"] == "deep-ssm"
        assert checkpoint.forward is not None
    api.prune(path, out, ratio=0.5)
    with containers.open_reader(out) as reader:
        assert reader.tensors.keys() == arrays.keys()
    assert api.verify(path, out).ok


def test_a_tensor_of_unknown_use_still_makes_another_model(tmp_path: Path) -> None:
    arrays = wrapped(torch_model(np.random.default_rng(0)) | {"head.weight": np.ones((3, 3), "f4")}, "model.")
    with api.open(written(tmp_path / "m.safetensors", arrays)) as checkpoint:
        assert checkpoint.forward is None


def test_names_that_would_become_one_stay_two() -> None:
    arrays = {"a.module.C": np.zeros(1), "a.C": np.ones(1), "b.module.C": np.zeros(2)}
    view, files = Naming.of(infos(arrays)).view(infos(arrays))
    assert files == {"a.module.C": "a.module.C", "a.C": "a.C", "b.C": "b.module.C"}
    assert [info.name for info in view.values()] == list(view)


def test_a_map_says_what_holds_a_model() -> None:
    tensors = infos({name.replace("log_A_real", "rates"): a for name, a in s4d_model(np.random.default_rng(0)).items()})
    assert not holds_model(tensors, lambda: Description((), {}))
    said = {"family": "s4d", "names": {"log_A_real": "rates"}}
    assert holds_model(tensors, lambda: Description((("flag", "m.yaml", said),), {}))
    assert not holds_model(infos({"w": np.ones(2)}), lambda: Description((("flag", "m.yaml", said),), {}))


def test_a_holder_is_taken_away_only_where_the_model_is_known_without_it() -> None:
    reader: Any = SimpleNamespace(tensors=infos({"foo.bar.w": np.ones(2), "foo.bar.b": np.ones(2)}))
    view = View()
    assert without_holder(view, reader, family_named("s5"), lambda family: {}) is view


def test_a_layer_of_another_name_than_its_tensors_keeps_it() -> None:
    family = Named(family_named("s4d"), Naming(roots=("model",)))
    family._view(infos({"model.w": np.ones(2)}))
    layer = family._outside(Layer("block", 2, 1, {"C": "w"}))
    assert (layer.name, dict(layer.tensors)) == ("block", {"C": "model.w"})
