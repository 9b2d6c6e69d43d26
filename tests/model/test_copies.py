"""Several models in one file: averaged copies are chosen by name, others are left out or carried as they are."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lastcli import api, containers
from lastcli.containers.base import TensorSource
from lastcli.errors import UsageError
from lastcli.model.copies import choose
from tests.builders.lru import minimal_lru, torch_model
from tests.builders.named import Arrays, infos
from tests.builders.s4d import s4d_model
from tests.builders.wrapped import wrapped
from tests.model.test_naming import written

PAIRS = [
    ("online_model.", "ema_model."),
    ("model.", "model_ema."),
    ("model.", "ema."),
    ("model.", "model_ema.module."),
    ("student.", "teacher."),
    ("net.", "averaged_model."),
]


def both(plain: str, copy: str, build: Any = torch_model) -> Arrays:
    first, second = build(np.random.default_rng(1)), build(np.random.default_rng(2))
    return wrapped(first, plain) | wrapped(second, copy) | {"initted": np.array(True), "step": np.array(9)}


@pytest.mark.parametrize(("plain", "copy"), PAIRS)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_an_averaged_copy_is_asked_about_and_chosen(plain: str, copy: str, suffix: str, tmp_path: Path) -> None:
    if suffix == "pth":
        pytest.importorskip("torch")
    arrays = both(plain, copy)
    path = written(tmp_path / f"m.{suffix}", arrays)
    names = [plain.rstrip("."), copy.split(".")[0]]
    with pytest.raises(UsageError) as raised:
        api.inspect(path)
    assert all(f"'{name}'" in str(raised.value) and f"--name {name}" in str(raised.value) for name in names)
    assert "\n" not in str(raised.value)
    for name, own, other in ((names[0], plain, copy), (names[1], copy, plain)):
        found = api.inspect(path, name=name)
        assert found.states == 12
        assert all(layer.name.startswith(own) for layer in found.layers)
        with api.open(path, name=name) as checkpoint:
            assert checkpoint.forward is not None
            np.testing.assert_array_equal(
                checkpoint.read(f"{own}blocks.0.lru.nu_log"), arrays[f"{own}blocks.0.lru.nu_log"]
            )
        out = tmp_path / f"{name}.{suffix}"
        result = api.prune(path, out, ratio=0.5, name=name)
        with containers.open_reader(out) as reader:
            assert {tensor for tensor in reader.tensors if "." in tensor} == {n for n in arrays if n.startswith(own)}
        assert result.states_before == 12
        assert api.verify(path, out).ok
        assert api.verify(path, out, name=name).ok
        assert any(f"'{other.split('.')[0]}'" in note for note in found.notes)


def test_an_unknown_name_lists_those_there_are(tmp_path: Path) -> None:
    path = written(tmp_path / "m.safetensors", both("online_model.", "ema_model."))
    with pytest.raises(UsageError, match=r"has no model 'ema'.*'online_model' and 'ema_model'"):
        api.inspect(path, name="ema")


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("suffix", ["safetensors", "msgpack", "pth", ""])
def test_the_others_are_carried_as_they_are_where_asked(suffix: str, keep: bool, tmp_path: Path) -> None:
    if suffix == "pth":
        pytest.importorskip("torch")
    arrays = both("online_model.", "ema_model.")
    if suffix in ("msgpack", ""):
        arrays = {name.replace(".", "/"): array for name, array in arrays.items()}
    end = f".{suffix}" if suffix else ""
    path, out = written(tmp_path / f"m{end}", arrays), tmp_path / f"small{end}"
    result = api.prune(path, out, ratio=0.5, name="ema_model", keep_others=keep)
    with containers.open_reader(out) as reader:
        other = [name for name in reader.tensors if name.startswith("online_model")]
        assert bool(other) is keep
        for name in other:
            assert reader.read(name).tobytes() == arrays[name].tobytes()
    size = sum(a.size for name, a in arrays.items() if not name.startswith("online_model"))
    assert result.parameters_before == size > result.parameters_after
    tensors = sum(a.nbytes for name, a in arrays.items() if keep or not name.startswith("online_model"))
    assert result.bytes_before - result.bytes_after < tensors / 2
    found = api.inspect(out)
    assert found.states == result.states_after
    assert all(layer.name.startswith("ema_model") for layer in found.layers)
    verified = api.verify(path, out)
    assert verified.ok, [check for check in verified.checks if not check.ok]


def test_a_changed_other_model_does_not_verify(tmp_path: Path) -> None:
    arrays = both("online_model.", "ema_model.")
    path, out = written(tmp_path / "m.safetensors", arrays), tmp_path / "small.safetensors"
    api.prune(path, out, ratio=0.5, name="ema_model", keep_others=True)
    with containers.open_reader(out) as reader:
        new = {name: reader.read(name).copy() for name in reader.tensors}
        new["online_model.decoder.weight"] += 1
        sources = [TensorSource.of(name, array) for name, array in new.items()]
        containers.write(tmp_path / "changed.safetensors", sources, metadata=reader.metadata)
    assert not api.verify(path, tmp_path / "changed.safetensors").ok


@pytest.mark.parametrize("copy", ["ema_params/", "ema/", "ema/params/"])
@pytest.mark.parametrize("suffix", [".msgpack", ""])
def test_a_train_state_with_an_average_is_asked_about(copy: str, suffix: str, tmp_path: Path) -> None:
    first, second = minimal_lru(np.random.default_rng(1)), minimal_lru(np.random.default_rng(2))
    own = {name: array for name, array in second.items() if name.startswith("params/")}
    arrays = first | {name.replace("params/", copy, 1): array for name, array in own.items()}
    path, out = written(tmp_path / f"m{suffix}", arrays), tmp_path / f"small{suffix}"
    name = copy.rstrip("/")
    with pytest.raises(UsageError, match=rf"'params' and '{name}'"):
        api.inspect(path)
    for chosen, tensors in (("params", first), (name, own | first)):
        root = "params/" if chosen == "params" else copy
        with api.open(path, name=chosen) as checkpoint:
            assert checkpoint.config["architecture"] == "minimal-lru"
            assert checkpoint.forward is not None
            theirs = first if chosen == "params" else second
            np.testing.assert_array_equal(checkpoint.read(f"{root}decoder/kernel"), theirs["params/decoder/kernel"])
        assert tensors
    api.prune(path, out, ratio=0.5, name=name, keep_others=True)
    assert api.verify(path, out).ok


def test_two_towers_are_one_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = wrapped(s4d_model(rng), "left.") | wrapped(s4d_model(rng), "right.")
    path = written(tmp_path / "m.safetensors", arrays)
    assert {layer.name.partition(".")[0] for layer in api.inspect(path).layers} == {"left", "right"}
    assert {layer.name.partition(".")[0] for layer in api.inspect(path, name="left").layers} == {"left"}


def torch_file(path: Path, tree: dict[str, Any]) -> Path:
    torch = pytest.importorskip("torch")

    def tensors(node: Any) -> Any:
        if isinstance(node, np.ndarray):
            return torch.from_numpy(node)
        return OrderedDict((k, tensors(v)) for k, v in node.items()) if isinstance(node, dict) else node

    torch.save(tensors(tree), path)
    return path


@pytest.mark.parametrize("keep", [False, True])
def test_two_models_of_a_torch_file(keep: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    first, second = torch_model(np.random.default_rng(1)), torch_model(np.random.default_rng(2), width=8)
    tree = {"SSM_0_state_dict": first, "SSM_1_state_dict": second, "epoch": 3}
    path, out = torch_file(tmp_path / "m.pth", tree), tmp_path / "small.pth"
    with pytest.raises(UsageError, match=r"2 models.*--name.*SSM_0_state_dict.*SSM_1_state_dict"):
        api.inspect(path)
    result = api.prune(path, out, ratio=0.5, name="SSM_0_state_dict", keep_others=keep)
    assert result.parameters_before == sum(a.size for a in first.values())
    back = torch.load(out, weights_only=True)
    assert back["epoch"] == 3
    assert list(back["SSM_0_state_dict"]) == list(first)
    assert ("SSM_1_state_dict" in back) is keep
    for name, array in second.items() if keep else ():
        assert back["SSM_1_state_dict"][name].numpy().tobytes() == array.tobytes()
    assert result.bytes_before / result.bytes_after < 2
    assert api.inspect(out).states == result.states_after
    assert api.verify(path, out).ok
    flat = tmp_path / "flat.safetensors"
    api.convert(path, flat, name="SSM_0_state_dict", keep_others=keep)
    assert api.inspect(flat).states == 12
    api.convert(flat, tmp_path / "again.pth", keep_others=keep)
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert again.keys() == back.keys()


@pytest.mark.parametrize("beside", ["scaler", "norm"])
def test_statistics_beside_the_model_are_carried(beside: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    statistics = {"mean": np.arange(3, dtype="f4"), "deep": {"std": np.ones(3, "f4")}, "kind": "standard"}
    optimizer = {"state": {}, "param_groups": [{"lr": 0.1}], "m": np.zeros(3, "f4")}
    grads = {"scale": 2.0, "growth_factor": 2.0, "_growth_tracker": 0}
    model = torch_model(np.random.default_rng(1))
    tree = {"model_state_dict": model, "optimizer": optimizer, "grad_scaler": grads, "loss": np.array(0.5, "f4")}
    path, out = torch_file(tmp_path / "m.pth", tree | {"data": {beside: statistics}}), tmp_path / "small.pth"
    with api.open(path, name="model_state_dict") as checkpoint:
        assert checkpoint.config["architecture"] == "deep-ssm"
        assert "deep" not in str(checkpoint.layers)
    api.prune(path, out, ratio=0.5, name="model_state_dict", keep_others=True)
    back = torch.load(out, weights_only=True)
    assert back.keys() == {"model_state_dict", "data", "loss"}
    assert back["data"][beside]["mean"].tolist() == [0, 1, 2]
    assert back["data"][beside]["deep"]["std"].tolist() == [1, 1, 1]
    assert back["data"][beside]["kind"] == "standard"
    assert api.verify(path, out, name="model_state_dict").ok


def test_only_what_holds_a_state_space_layer_is_a_candidate(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = wrapped(torch_model(np.random.default_rng(1)), "model.")
    kept = {"EarlyStopping{'monitor': 'val_loss'}": {"best_score": np.array(0.5, "f4"), "patience": 3}}
    tree = {"epoch": 4, "state_dict": model, "callbacks": kept, "curriculum": {"thresholds": np.ones(3, "f4")}}
    path, out = torch_file(tmp_path / "best.ckpt", tree), tmp_path / "small.ckpt"
    assert api.inspect(path).states == 12
    api.prune(path, out, ratio=0.5)
    back = torch.load(out, weights_only=True)
    assert back["curriculum"]["thresholds"].tolist() == [1, 1, 1]
    assert back["callbacks"].keys() == kept.keys()
    assert api.verify(path, out).ok
    both_ = torch_file(tmp_path / "two.ckpt", {"actor": model, "critic": model, "curriculum": tree["curriculum"]})
    with pytest.raises(UsageError, match=r"holds 2 models; name one of them with --name: 'actor', 'critic'\.$"):
        api.inspect(both_)
    with pytest.raises(UsageError, match="'actor', 'critic', 'curriculum'"):
        containers.open_reader(both_)


def every(*names: str) -> Arrays:
    return {name: np.ones(1, np.float32) for name in names}


def test_a_list_of_copies_is_one_copy_each() -> None:
    tensors = infos(every(*(f"{head}.{leaf}" for head in ("model", "ema_models.0", "ema_models.1") for leaf in "wb")))
    with pytest.raises(UsageError, match=r"choose one with --name model or --name ema_models/0 or --name ema_models/1"):
        choose(tensors, None, bool, "x")
    chosen = choose(tensors, "ema_models/1", bool, "x")
    assert chosen.at == ("model",)
    assert chosen.replaced == ((("ema_models", "1"), ("model",)),)
    assert chosen.others == {
        "ema_models/0": {"ema_models.0.w", "ema_models.0.b"},
        "model": {"model.w", "model.b"},
    }


def test_a_copy_is_called_by_the_shortest_path_that_tells_it_from_the_model() -> None:
    tensors = infos(every(*(f"{head}state/params/{leaf}" for head in ("", "ema/") for leaf in "wb")))
    with pytest.raises(UsageError, match=r"'state' and 'ema/state'; choose one"):
        choose(tensors, None, bool, "x")
