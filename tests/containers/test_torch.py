"""torch files: wrappers, prefixes, several models, and what is put back."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict

import numpy as np
import pytest

from lastcli import containers
from lastcli.errors import InputError, OutputError, UsageError
from tests.containers.samples import contents, copy, put

torch = pytest.importorskip("torch")


def weights(prefix: str = "") -> OrderedDict:
    return OrderedDict(
        [
            (f"{prefix}encoder.weight", torch.arange(6.0).reshape(2, 3)),
            (f"{prefix}layers.0.C", torch.tensor([[1 + 2j, 3]], dtype=torch.complex64)),
            (f"{prefix}layers.0.half", torch.arange(4).to(torch.bfloat16)),
            (f"{prefix}n", torch.tensor(5)),
        ]
    )


OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2, 3)}}, "param_groups": [{"lr": 0.1}]}


def save(path, value, **options):
    torch.save(value, path, **options)
    return path


def same(left, right, at="top"):
    """Equal structure and bits."""
    assert isinstance(right, dict) == isinstance(left, dict), at
    if isinstance(left, dict):
        assert list(left) == list(right), at
        for key in left:
            same(left[key], right[key], f"{at}/{key}")
    elif torch.is_tensor(left):
        assert left.dtype == right.dtype, at
        assert torch.equal(left, right), at
    else:
        assert type(left) is type(right), at
        assert left == right, at


@pytest.mark.parametrize(
    ("tree", "dropped"),
    [
        (weights(), 0),
        ({"model": weights(), "acc": 98.5, "epoch": 4}, 0),
        ({"model": weights("module."), "acc": 98.5}, 0),
        (weights("module._orig_mod."), 0),
        ({"model_state_dict": weights(), "epoch": 3, "optimizer_state_dict": OPTIMIZER}, 1),
        ({"state_dict": weights("model."), "hyper_parameters": {"lr": 0.1}, "optimizer_states": [OPTIMIZER]}, 1),
        ({"run": {"model": weights(), "optimizer": OPTIMIZER}, "seed": 1}, 1),
        ({"model": weights(), "loss": torch.tensor(0.1), "lr_scheduler": {"last": 3}}, 1),
    ],
    ids=["bare", "model", "module", "compiled", "optimizer", "lightning", "nested", "tensor_beside"],
)
def test_the_wrapper_is_undone_and_put_back(tree, dropped, tmp_path):
    path = save(tmp_path / "x.pt", tree)
    prefix = "model." if "state_dict" in tree else ""
    with containers.open_reader(path) as reader:
        assert [name for name in reader.tensors if name not in reader.beside] == list(weights(prefix))
        assert len(reader.dropped) == dropped
        np.testing.assert_array_equal(reader.read(f"{prefix}layers.0.C"), np.array([[1 + 2j, 3]], np.complex64))
        assert reader.tensors[f"{prefix}layers.0.half"].dtype == "bfloat16"
        copy(reader, tmp_path / "y.pth", template=reader)
        # the file itself shows its wrappers
        kept = json.loads((tmp_path / "y.json").read_text())["last"]["metadata"]
        assert set(kept) == {"last.container", "last.digests"}
        copy(reader, tmp_path / "z.safetensors")
    with containers.open_reader(tmp_path / "z.safetensors") as reader:
        assert [name for name in reader.tensors if name not in reader.beside] == list(weights(prefix))
        copy(reader, tmp_path / "z.ckpt")
    gone = {"optimizer_state_dict", "optimizer_states", "lr_scheduler"}
    expected = {key: value for key, value in tree.items() if key not in gone}
    if "run" in expected:
        expected["run"] = {"model": tree["run"]["model"]}
    for back in (tmp_path / "y.pth", tmp_path / "z.ckpt"):
        loaded = torch.load(back, weights_only=True)
        assert set(loaded) == set(expected)
        same({key: expected[key] for key in loaded}, loaded)


def test_a_module_loads_what_is_put_back(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    path = save(tmp_path / "x.pt", module.state_dict())
    with containers.open_reader(path) as reader:
        copy(reader, tmp_path / "y.pt")
    loaded = torch.load(tmp_path / "y.pt", weights_only=True)
    assert loaded._metadata == module.state_dict()._metadata
    torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).load_state_dict(loaded)


def test_shapes_may_change_inside_the_wrapper(tmp_path):
    path = save(tmp_path / "x.pt", {"model": weights("module."), "epoch": 4})
    with containers.open_reader(path) as reader:
        put(tmp_path / "y.pt", {"encoder.weight": np.ones((1, 3), np.float32)}, template=reader, extras=reader.extras)
    loaded = torch.load(tmp_path / "y.pt", weights_only=True)
    assert loaded["epoch"] == 4
    assert list(loaded["model"]) == ["module.encoder.weight"]


def test_one_of_several_models_is_named(tmp_path):
    generator, critic = weights(), OrderedDict(w=torch.zeros(2))
    path = save(tmp_path / "x.pt", {"generator": generator, "critic": critic, "epoch": 1})
    for name in (None, "other"):
        with pytest.raises(UsageError, match="'generator', 'critic'"):
            containers.open_reader(path, name=name)
    with containers.open_reader(path, name="critic") as reader:
        assert list(reader.tensors) == ["w"]
        assert "'generator'" in reader.dropped[0]
        copy(reader, tmp_path / "y.pt")
    same({"critic": critic, "epoch": 1}, torch.load(tmp_path / "y.pt", weights_only=True))


def test_shared_tensors_are_shared_again(tmp_path):
    tensor = torch.arange(1000.0)
    path = save(tmp_path / "x.pt", {"a": tensor, "b": tensor, "c": tensor.clone()})
    with containers.open_reader(path) as reader:
        copy(reader, tmp_path / "y.pt")
        changed = {"a": np.zeros(1000, np.float32), "b": reader.read("b"), "c": reader.read("c")}
        put(tmp_path / "z.pt", changed, template=reader)
    loaded = torch.load(tmp_path / "y.pt", weights_only=True)
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr() != loaded["c"].data_ptr()
    loaded = torch.load(tmp_path / "z.pt", weights_only=True)
    assert loaded["a"].sum() == 0
    torch.testing.assert_close(loaded["b"], tensor)


def test_views_conjugates_and_strides_are_read_as_they_look(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tree = {
        "transposed": base.T,
        "strided": base[:, ::2],
        "expanded": torch.ones(1).expand(5),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "negative": torch.tensor([1 + 2j]).conj().imag,
    }
    arrays = contents(save(tmp_path / "x.pt", tree))
    for name, tensor in tree.items():
        np.testing.assert_array_equal(arrays[name], tensor.resolve_conj().resolve_neg().numpy())


def test_a_nested_state_dict(tmp_path):
    tree = {"model": {"enc": {"w": torch.ones(2)}, "b": torch.zeros(1)}}
    path = save(tmp_path / "x.pt", tree)
    with containers.open_reader(path) as reader:
        assert list(reader.tensors) == ["enc/w", "b"]
        copy(reader, tmp_path / "y.safetensors")
    with containers.open_reader(tmp_path / "y.safetensors") as reader:
        copy(reader, tmp_path / "y.pt")
    same(tree, torch.load(tmp_path / "y.pt", weights_only=True))


def test_the_legacy_format(tmp_path):
    path = save(tmp_path / "x.pt", {"model": weights()}, _use_new_zipfile_serialization=False)
    assert set(contents(path)) == set(weights())
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            containers.open_reader(path)


@pytest.mark.parametrize(
    "tensor", [torch.ones(2, 2).to_sparse(), torch.empty(2, device="meta")], ids=["sparse", "meta"]
)
def test_tensors_that_are_not_dense_are_refused(tensor, tmp_path):
    with pytest.raises(InputError, match=r"'w' is|cannot be loaded|refuses"):
        containers.open_reader(save(tmp_path / "x.pt", {"w": tensor, "b": torch.ones(1)}))


def test_without_torch_files_are_read_and_one_sentence_says_what_writing_needs(tmp_path, monkeypatch):
    path = save(tmp_path / "x.pt", weights())
    monkeypatch.setitem(sys.modules, "torch", None)
    assert set(contents(path)) == set(weights())
    with pytest.raises(OutputError, match=r"pip install 'lastcli\[torch\]'"):
        put(tmp_path / "y.pt", {"a": np.ones(2)})


def test_nothing_of_a_refused_file_runs(tmp_path):
    class Touch:
        def __reduce__(self):
            return open, (str(tmp_path / "touched"), "w")

    for number, zipped in enumerate((True, False)):
        path = save(tmp_path / f"{number}.pt", {"w": Touch()}, _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match=r"'(_?io|builtins)\.open'"):
            containers.open_reader(path)
    assert not (tmp_path / "touched").exists()


def test_a_part_of_one_of_several_models_is_left_to_whoever_knows_it(tmp_path):
    path = save(tmp_path / "x.pt", {"generator": weights(), "critic": weights()})
    with containers.open_reader(path, name="generator/encoder") as reader:
        assert (reader.model, reader.asked) == ("generator", "encoder")


def test_a_dtype_that_no_container_holds_is_refused_by_name(tmp_path):
    path = save(tmp_path / "x.pt", {"w": torch.ones(2), "z": torch.zeros(2, dtype=torch.int32).view(torch.complex32)})
    with pytest.raises(InputError, match=r"tensor 'z' has dtype complex32, which last does not support"):
        containers.open_reader(path)


@pytest.mark.parametrize(
    ("extras", "says"),
    [
        ({"w/x": 1}, "'w/x' cannot be stored below a tensor"),
        ({"e": 1, "last.structure": {"paths": {"e": ["w"]}}}, "'w' is there twice"),
    ],
)
def test_a_leaf_without_a_place_in_the_wrapper_is_refused(extras, says, tmp_path):
    with pytest.raises(OutputError, match=says):
        put(tmp_path / "x.pt", {"w": np.ones(2)}, extras=extras)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_inside_pytorch_is_one_sentence(tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("an assertion of the archive writer")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OutputError, match=r"PyTorch could not write the file \(an assertion of the archive writer\)"):
        put(tmp_path / "x.pt", {"w": np.ones(2)})


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_is_known_by_how_it_begins_whatever_its_name(zipped, tmp_path):
    path = save(tmp_path / "weights of monday", {"w": torch.ones(2)}, _use_new_zipfile_serialization=zipped)
    assert containers.kind_of(path) == "torch"
    with containers.open_reader(path) as reader:
        assert list(reader.tensors) == ["w"]


def test_several_models_are_written_together_where_none_is_left_out(tmp_path):
    models = {"generator": weights(), "critic": OrderedDict(w=torch.zeros(2))}
    path = save(tmp_path / "x.pt", models)
    with containers.open_reader(path, name="generator", keep_others=True) as reader:
        copy(reader, tmp_path / "y.pt")
    same(models, torch.load(tmp_path / "y.pt", weights_only=True))
