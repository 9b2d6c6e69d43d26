"""orbax folders against orbax itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax.training.train_state import TrainState

from lastcli import containers
from lastcli.containers.orbax import writer as orbax_write
from lastcli.containers.orbax.store import Store
from lastcli.errors import InputError, OutputError
from tests.containers.samples import EXTRAS, contents, copy, every_dtype, put, same_bits

TREE = {
    "params": {
        "enc": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, ml_dtypes.bfloat16)},
        "a.b": np.array(3, np.int32),
        "list": [np.zeros(2), np.ones(3, bool)],
        "c": np.full(3, 1 + 2j, np.complex64),
    },
    "step": 7,
    "best": 0.5,
    "nothing": None,
    "empty": {},
}
FLAT = {
    "params/enc/kernel": TREE["params"]["enc"]["kernel"],
    "params/enc/b": TREE["params"]["enc"]["b"],
    "params/a.b": TREE["params"]["a.b"],
    "params/list/0": np.zeros(2),
    "params/list/1": np.ones(3, bool),
    "params/c": TREE["params"]["c"],
}
LEAVES = {"step": 7, "best": 0.5, "nothing": None, "empty": {}, "params/list": []}


def save(path, tree, checkpointer=ocp.PyTreeCheckpointer):
    with checkpointer() as open_checkpointer:
        open_checkpointer.save(path, tree)


def handler(**options):
    return lambda: ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options))


@pytest.mark.parametrize(
    "checkpointer",
    [
        ocp.StandardCheckpointer,
        ocp.PyTreeCheckpointer,
        handler(use_ocdbt=False),
        handler(use_zarr3=True),
        handler(use_ocdbt=False, use_zarr3=True),
    ],
    ids=["standard", "pytree", "folders", "zarr3", "zarr3_folders"],
)
def test_what_orbax_writes_is_read(checkpointer, tmp_path):
    save(tmp_path / "x", TREE, checkpointer)
    same_bits(contents(tmp_path / "x"), FLAT)
    with containers.open_reader(tmp_path / "x") as reader:
        assert reader.kind == "orbax"
        assert reader.extras == LEAVES


def test_arrays_of_jax_are_read(tmp_path):
    tree = {"w": jnp.arange(5.0), "k": {"b": jnp.ones((2, 2), jnp.bfloat16)}}
    save(tmp_path / "x", tree, ocp.StandardCheckpointer)
    same_bits(contents(tmp_path / "x"), {"w": np.asarray(tree["w"]), "k/b": np.asarray(tree["k"]["b"])})


def test_a_train_state_loses_its_optimizer_and_says_so(tmp_path):
    state = TrainState.create(apply_fn=None, params={"w": jnp.ones(3)}, tx=optax.adam(1e-3))
    save(tmp_path / "x", state, ocp.StandardCheckpointer)
    with containers.open_reader(tmp_path / "x") as reader:
        assert list(reader.tensors) == ["params/w"]
        assert reader.extras == {"step": 0}
        assert "opt_state' (3 tensors, 28 bytes)" in reader.dropped[0]


def test_the_last_step_of_a_manager(tmp_path):
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (3, 20):
            item = ocp.args.StandardSave({"params": {"w": np.full(2, step)}})
            manager.save(step, args=ocp.args.Composite(state=item, notes=ocp.args.JsonSave({"a": 1})))
        manager.wait_until_finished()
    with containers.open_reader(tmp_path / "run") as reader:
        np.testing.assert_array_equal(reader.read("params/w"), [20, 20])
        assert any("2 steps" in note and "20" in note for note in reader.dropped)
        assert any("'notes'" in note for note in reader.dropped)
    np.testing.assert_array_equal(contents(tmp_path / "run" / "3")["params/w"], [3, 3])


@pytest.mark.parametrize("checkpointer", [ocp.StandardCheckpointer, ocp.PyTreeCheckpointer], ids=["standard", "pytree"])
def test_orbax_restores_what_is_written(checkpointer, tmp_path):
    arrays = every_dtype()
    put(tmp_path / "x", arrays, {"k": "v"}, extras=EXTRAS)
    with checkpointer() as open_checkpointer:
        tree = open_checkpointer.restore(tmp_path / "x")
        assert open_checkpointer.metadata(tmp_path / "x").custom_metadata["k"] == "v"
    for name, array in arrays.items():
        leaf = tree
        for part in name.split("/"):
            leaf = leaf[part]
        assert leaf.dtype == array.dtype
        assert np.asarray(leaf).tobytes() == array.tobytes()
    assert tree["step"] == EXTRAS["step"]
    assert tree["note"] == EXTRAS["note"]
    assert tree["nothing"] is None
    assert tree["empty"] == {}
    assert np.isnan(tree["never"])


def test_orbax_restores_into_a_target_of_jax_arrays(tmp_path):
    put(tmp_path / "x", {"params/w": np.arange(4, dtype=np.float32)}, extras={"step": 3})
    target = {"params": {"w": jax.ShapeDtypeStruct((4,), np.float32)}, "step": 0}
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(tmp_path / "x", target)
    np.testing.assert_array_equal(tree["params"]["w"], np.arange(4))
    assert tree["step"] == 3


def test_lists_come_back_as_lists(tmp_path):
    save(tmp_path / "x", TREE)
    with containers.open_reader(tmp_path / "x") as reader:
        copy(reader, tmp_path / "flat.safetensors")
    with containers.open_reader(tmp_path / "flat.safetensors") as reader:
        copy(reader, tmp_path / "y")
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.restore(tmp_path / "y")
    assert isinstance(tree["params"]["list"], list)
    np.testing.assert_array_equal(tree["params"]["list"][1], np.ones(3, bool))


def test_large_tensors_are_cut_into_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(orbax_write, "MAX_CHUNK", 100)
    array = np.arange(77, dtype=np.float32).reshape(11, 7)
    put(tmp_path / "x", {"w": array})
    assert len(list((tmp_path / "x" / "w").iterdir())) == 1 + 4
    same_bits(contents(tmp_path / "x"), {"w": array})
    with ocp.PyTreeCheckpointer() as checkpointer:
        np.testing.assert_array_equal(checkpointer.restore(tmp_path / "x")["w"], array)


def test_a_deleted_manifest_is_an_error(tmp_path):
    save(tmp_path / "x", TREE)
    (tmp_path / "x" / "manifest.ocdbt").unlink()
    with pytest.raises(InputError, match="missing"):
        containers.open_reader(tmp_path / "x")


def test_damaged_data_of_orbax_never_end_in_another_error(tmp_path):
    save(tmp_path / "x", {"w": np.arange(4000, dtype=np.float32)})
    files = [path for path in (tmp_path / "x").rglob("*") if path.is_file() and path.parent.name == "d"]
    for file in files:
        whole = file.read_bytes()
        for data in (whole[:-1], whole[: len(whole) // 2], b"", whole[:50] + b"\xff" * 20 + whole[70:]):
            file.write_bytes(data)
            try:
                array = contents(tmp_path / "x")["w"]
            except InputError:
                continue
            assert array.shape == (4000,)
        file.write_bytes(whole)


def test_a_dtype_tensorstore_lacks_is_refused(tmp_path):
    with pytest.raises(OutputError, match="float8_e8m0fnu"):
        put(tmp_path / "x", {"w": np.ones(3, ml_dtypes.float8_e8m0fnu)})


def test_neither_orbax_nor_jax_is_imported(tmp_path):
    save(tmp_path / "x", TREE)
    code = (
        "import sys; from pathlib import Path; from lastcli import containers as c\n"
        f"r = c.open_reader(Path({str(tmp_path / 'x')!r}))\n"
        "s = [c.TensorSource(i, lambda n=n: r.read(n)) for n, i in r.tensors.items()]\n"
        f"c.write(Path({str(tmp_path / 'y')!r}), s, metadata={{}}, extras=r.extras)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'jax', 'flax', 'orbax', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_written_on_eight_devices_read_on_one(tmp_path):
    code = (
        "import jax, numpy as np, orbax.checkpoint as ocp\n"
        "from jax.sharding import Mesh, NamedSharding, PartitionSpec as P\n"
        "s = NamedSharding(Mesh(np.array(jax.devices()), ('x',)), P('x'))\n"
        "w = jax.device_put(np.arange(64, dtype=np.float32).reshape(16, 4), s)\n"
        f"c = ocp.StandardCheckpointer(); c.save({str(tmp_path / 'x')!r}, {{'w': w}}); c.wait_until_finished()\n"
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env={**os.environ, **flags})
    tree = json.loads((tmp_path / "x" / "_METADATA").read_text())["tree_metadata"]
    assert tree["('w',)"]["value_metadata"]["write_shape"] == [2, 4]
    same_bits(contents(tmp_path / "x"), {"w": np.arange(64, dtype=np.float32).reshape(16, 4)})


def unfinish(step):
    """A step whose save was killed: no commit mark, no commit time."""
    (step / "commit_success.txt").unlink(missing_ok=True)
    document = json.loads((step / "_CHECKPOINT_METADATA").read_text())
    (step / "_CHECKPOINT_METADATA").write_text(json.dumps(document | {"commit_timestamp_nsecs": None}))


@pytest.fixture
def run(tmp_path):
    """Steps 3, 20 and 100 of a manager."""
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (3, 20, 100):
            manager.save(step, args=ocp.args.StandardSave({"w": np.full(2, step)}))
        manager.wait_until_finished()
    return tmp_path / "run"


def test_the_newest_finished_step_is_read_and_the_unfinished_ones_are_named(run):
    unfinish(run / "100")
    (run / "200.orbax-checkpoint-tmp-17").mkdir()
    (run / "2.orbax-checkpoint-tmp-18").mkdir()
    (run / "300").mkdir()
    with containers.open_reader(run) as reader:
        np.testing.assert_array_equal(reader.read("w"), [20, 20])
        notes = " ".join(reader.dropped)
    assert "Of the 4 steps in the folder the last finished one, 20, was read." in notes
    for name in ("'100'", "'200.orbax-checkpoint-tmp-17'", "'300'"):
        assert f"The save {name} was not finished and is not read." in notes
    assert "'2.orbax" not in notes


def test_a_folder_of_nothing_but_unfinished_steps_names_them(run):
    for step in (3, 20, 100):
        unfinish(run / str(step))
    with pytest.raises(InputError, match=r"only an unfinished save \('100', '20', '3'\)"):
        containers.open_reader(run)
    with pytest.raises(InputError, match="is an unfinished orbax checkpoint"):
        containers.open_reader(run / "20")


def test_a_damaged_step_is_an_error_and_not_passed_over(run):
    (run / "100" / "default" / "_METADATA").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        containers.open_reader(run)


def test_a_second_item_with_the_optimizer_is_left_and_its_sister_read_as_the_model(tmp_path):
    params = {"layers_0": {"kernel": np.ones((3, 4), np.float32)}}
    items = {
        "model": ocp.args.PyTreeSave({"params": params}),
        "train": ocp.args.PyTreeSave(optax.adam(1e-3).init(params)),
    }
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(0, args=ocp.args.Composite(**items))
        manager.wait_until_finished()
    with containers.open_reader(tmp_path / "run") as reader:
        assert list(reader.tensors) == ["params/layers_0/kernel"]
        assert "The optimizer state 'train' (3 tensors, 100 bytes)" in reader.dropped[0]


def test_an_array_that_is_not_as_it_was_described(tmp_path):
    put(tmp_path / "x", {"w": np.ones(3)})
    store = Store(tmp_path / "x", ocdbt=False, zarr3=False, complete=True)
    with pytest.raises(InputError, match=r"'w' reads as float64 \(3,\), but is described as float32 \(3,\)"):
        store.read("w", containers.TensorInfo("w", (3,), "float32", 12))


def test_a_tree_of_nothing_and_one_without_metadata_of_its_own(tmp_path):
    put(tmp_path / "x", {})
    assert contents(tmp_path / "x") == {}
    put(tmp_path / "y", {"w": np.ones(2)}, {"k": "v"})
    (tmp_path / "y" / "_CHECKPOINT_METADATA").unlink()
    with containers.open_reader(tmp_path / "y") as reader:
        assert dict(reader.metadata) == {}
        np.testing.assert_array_equal(reader.read("w"), np.ones(2))


@pytest.mark.parametrize("code", ["<f3", "|x1"])
def test_a_dtype_that_numpy_does_not_know_comes_back_as_it_stands(code):
    from lastcli.containers.orbax.store import _parse

    assert _parse(json.dumps({"shape": [2], "dtype": code}).encode(), "x") == ((2,), code)
