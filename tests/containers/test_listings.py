"""Folders that are no checkpoint: one model file in them is opened, several are listed, as is what else is there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flax import serialization

from lastcli import containers
from lastcli.errors import InputError
from lastcli.model.opening import open_checkpoint
from tests.conftest import write_s5
from tests.containers.samples import contents, put, same_bits

ARRAYS = {"w": np.arange(3.0), "b": np.ones(2)}


def torch_file(path):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(array) for name, array in ARRAYS.items()}, path)


def flax_file(path):
    path.write_bytes(serialization.msgpack_serialize(ARRAYS))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("best.ckpt", torch_file),
        ("pytorch_model.bin", torch_file),
        ("checkpoint_20", flax_file),
        ("m.msgpack", flax_file),
    ],
)
def test_the_only_model_of_a_folder_is_opened(tmp_path, name, write):
    folder = tmp_path / "run"
    (folder / "logs").mkdir(parents=True)
    write(folder / name)
    for other, text in {"config.json": "{}", "README.md": "#", "training_args.bin": "PK", "data.npz": "PK"}.items():
        (folder / other).write_text(text)
    if write is torch_file:
        torch_file(folder / "optimizer.pt")
        torch_file(folder / "rng_state_0.pth")
    same_bits(contents(folder), ARRAYS)
    with containers.open_reader(folder) as reader:
        assert reader.path == folder / name


def test_its_sidecar_is_found_beside_it(tmp_path):
    (tmp_path / "run").mkdir()
    write_s5(tmp_path / "t.safetensors")
    with containers.open_reader(tmp_path / "t.safetensors") as reader:
        sources = [containers.TensorSource.of(name, reader.read(name)) for name in reader.tensors]
        containers.write(tmp_path / "run" / "best.msgpack", sources, metadata=reader.metadata)
    with open_checkpoint(tmp_path / "run") as checkpoint:
        assert checkpoint.description.beside.path == tmp_path / "run" / "best.json"


def test_several_models_are_asked_about_in_the_order_of_their_numbers(tmp_path):
    for step in (3, 20, 100):
        flax_file(tmp_path / f"checkpoint_{step}")
    says = (
        r"is a folder of 3 models \(flax msgpack\): checkpoint_3, checkpoint_20, checkpoint_100; give the path of one"
    )
    with pytest.raises(InputError, match=says):
        containers.open_reader(tmp_path)
    for step in range(200, 205):
        flax_file(tmp_path / f"checkpoint_{step}")
    with pytest.raises(InputError, match="checkpoint_200, checkpoint_201 and 3 more;"):
        containers.open_reader(tmp_path)


def test_a_distributed_checkpoint_is_named(tmp_path):
    for name in (".metadata", "__0_0.distcp", "__1_0.distcp"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"distributed PyTorch checkpoint \(2 \.distcp files\); make it one file with"):
        containers.open_reader(tmp_path)


def test_anything_else_is_listed(tmp_path, last):
    with pytest.raises(InputError, match=r"is a folder without a checkpoint .*: it is empty;"):
        containers.open_reader(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "evil\x1b[31m").write_text("")
    code, _, err = last("inspect", tmp_path)
    assert code == 3
    assert r"it holds checkpoints/, evil\x1b[31m, metrics.json; give the path of a checkpoint." in err.replace(
        "\n", " "
    )


def test_safetensors_without_an_index_are_listed(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / f"{name}.safetensors", ARRAYS)
    with pytest.raises(InputError, match=r"has 2 safetensors files and no index \(a\.safetensors, b\.safetensors\)"):
        containers.open_reader(tmp_path)


def test_a_folder_with_a_file_is_no_place_for_another_checkpoint(tiny, last):
    folder = tiny.parent / "run"
    folder.mkdir()
    flax_file(folder / "best.msgpack")
    code, _, err = last("prune", tiny, "--ratio", "0.3", "--out", folder, "--force")
    assert code == 5
    assert "choose another name" in err
    assert json.loads(last("inspect", tiny, "--json")[1])["family"] == "s5"
