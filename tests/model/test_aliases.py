"""One module under two names is one layer: seen once, counted once, cut once, written twice."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lastcli import api, containers
from lastcli.containers.base import TensorSource
from lastcli.families.base import Layer
from lastcli.model.aliases import Aliases, find_aliases
from tests.builders.lru import torch_model
from tests.builders.named import Arrays
from tests.builders.s4 import numbers, prefixed, v4
from tests.builders.s4d import s4d_model
from tests.builders.wrapped import wrapped
from tests.model.test_naming import written

torch = pytest.importorskip("torch")

HEAD = {"model.1.weight": np.ones((2, 3), "f4")}


def shared_file(path: Path, arrays: Arrays, pairs: dict[str, str]) -> Path:
    """A torch file in which every name of `pairs` is the tensor of its partner."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    state_dict = OrderedDict(tensors)
    for second, first in pairs.items():
        state_dict[second] = tensors[first]
    torch.save({"state_dict": state_dict, "epoch": 2}, path)
    return path


def two_names(arrays: Arrays, first: str = "encoder.", second: str = "model.0.") -> dict[str, str]:
    return {second + name: first + name for name in arrays}


def test_shared_storage_is_cut_once_and_shared_again(tmp_path: Path) -> None:
    arrays = {name: a.astype("f4") for name, a in s4d_model(np.random.default_rng(0)).items()}
    pairs = two_names(arrays)
    path, out = shared_file(tmp_path / "m.ckpt", wrapped(arrays, "encoder.") | HEAD, pairs), tmp_path / "small.ckpt"
    found = api.inspect(path)
    assert all(layer.name.startswith("encoder.") for layer in found.layers)
    assert found.parameters == sum(a.size for a in (*arrays.values(), *HEAD.values()))
    assert [note for note in found.notes if "'encoder' and 'model.0' are one module under two names" in note]
    result = api.prune(path, out, ratio=0.4)
    assert result.states_before == found.states
    back = torch.load(out, weights_only=True)["state_dict"]
    assert list(back) == list(torch.load(path, weights_only=True)["state_dict"])
    for second, first in pairs.items():
        assert back[second].data_ptr() == back[first].data_ptr(), second
    assert abs(result.bytes_after - out.stat().st_size) == 0
    assert result.bytes_before < 1.2 * path.stat().st_size
    assert api.verify(path, out).ok


def test_new_tensors_get_both_names(tmp_path: Path) -> None:
    arrays = prefixed(v4(numbers(np.random.default_rng(0)), length=8), "blocks.0.layer.")
    pairs = two_names(arrays)
    path, out = shared_file(tmp_path / "m.ckpt", wrapped(arrays, "encoder."), pairs), tmp_path / "small.ckpt"
    api.prune(path, out, ratio=0.4, model={"form": "s4d"})
    back = torch.load(out, weights_only=True)["state_dict"]
    first = [name for name in back if name.startswith("encoder.")]
    assert {name.replace("encoder.", "model.0.", 1) for name in first} == back.keys() - set(first)
    assert set(back) != {*pairs, *pairs.values()}
    assert all(back[name].data_ptr() == back[name.replace("encoder.", "model.0.", 1)].data_ptr() for name in first)
    assert api.inspect(out).states == sum(layer.states * layer.sets for layer in api.inspect(out).layers)
    assert api.verify(path, out).ok


def test_equal_bytes_under_two_paths_are_one_module_and_said_so(tmp_path: Path) -> None:
    arrays = {name: a.astype("f4") for name, a in s4d_model(np.random.default_rng(0)).items()}
    whole = wrapped(arrays, "encoder.") | wrapped(arrays, "model.0.")
    path, out = written(tmp_path / "m.safetensors", whole), tmp_path / "small.safetensors"
    found = api.inspect(path)
    assert all(layer.name.startswith("encoder.") for layer in found.layers)
    assert any("equal in every byte and taken for one module" in note for note in found.notes)
    api.prune(path, out, ratio=0.4)
    with containers.open_reader(out) as reader:
        assert list(reader.tensors) == list(whole)
        for name in arrays:
            assert reader.read(f"encoder.{name}").tobytes() == reader.read(f"model.0.{name}").tobytes()
    assert api.verify(path, out).ok
    with containers.open_reader(out) as reader:
        new = {name: reader.read(name).copy() for name in reader.tensors}
        new[next(name for name in new if name.startswith("model.0.") and name.endswith("C"))] *= 2
        changed = tmp_path / "changed.safetensors"
        containers.write(changed, [TensorSource.of(*item) for item in new.items()], metadata=reader.metadata)
    assert not api.verify(path, changed).ok


def test_alike_is_not_the_same(tmp_path: Path) -> None:
    """Two modules of one shape, or two layers of a stack with equal bytes, stay two."""
    rng = np.random.default_rng(0)
    two = wrapped(s4d_model(rng), "left.") | wrapped(s4d_model(rng), "right.")
    layers = len(api.inspect(written(tmp_path / "one.safetensors", s4d_model(rng))).layers)
    assert len(api.inspect(written(tmp_path / "two.safetensors", two)).layers) == 2 * layers
    model = torch_model(rng)
    same = model | {name: model[name.replace("blocks.1", "blocks.0")] for name in model if "blocks.1.lru" in name}
    assert len(api.inspect(written(tmp_path / "same.safetensors", same)).layers) == 2


def test_a_layer_that_a_stack_runs_again_is_cut_once(tmp_path: Path) -> None:
    """Weights shared over depth: one layer, both runs of it in the forward pass."""
    from lastcli.evaluation.data import Split
    from lastcli.evaluation.passes import in_precision, model_outputs

    def run(c):
        forward = c.require_forward()
        return forward.apply(c.params, in_precision(forward, c.systems), x, None)

    arrays = torch_model(np.random.default_rng(0))
    again = {name: name.replace("blocks.1", "blocks.0") for name in arrays if "blocks.1.lru" in name}
    twice = arrays | {name: arrays[first] for name, first in again.items()}
    path, out = shared_file(tmp_path / "m.pth", arrays, again), tmp_path / "small.pth"
    x = np.random.default_rng(1).normal(size=(2, 9, 2)).astype("f4")
    with api.open(path) as checkpoint, api.open(written(tmp_path / "two.safetensors", twice)) as separate:
        assert [layer.name for layer in checkpoint.layers] == ["blocks.0.lru"]
        assert len(separate.layers) == 2
        outputs = [
            np.concatenate(list(model_outputs(c.require_forward(), c.params, c.systems, Split(x))))
            for c in (checkpoint, separate)
        ]
        np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
        inputs = [run(c)[1] for c in (checkpoint, separate)]
        np.testing.assert_allclose(inputs[0][0], np.concatenate(inputs[1]), rtol=1e-4, atol=1e-5)
    api.prune(path, out, ratio=0.5)
    back = torch.load(out, weights_only=True)["state_dict"]
    for name, first in again.items():
        assert back[name].data_ptr() == back[first].data_ptr()
    assert back["blocks.0.lru.nu_log"].shape == (3,)
    assert api.verify(path, out).ok


def test_layers_of_other_parts_are_no_module_twice() -> None:
    tensors = {name: containers.TensorInfo(name, (2,), "float32", 8) for name in ("a.B", "b.B", "b.C")}
    layers = [Layer("a", 2, 1, {"B": "a.B"}), Layer("b", 2, 1, {"B": "b.B", "C": "b.C"})]
    assert find_aliases(SimpleNamespace(shared=[], digests={}), tensors, layers) == Aliases()
