"""Trees of flax.nnx and trees with numbers for keys: read under plain names, written back as they were."""

from __future__ import annotations

import itertools

import jax
import ml_dtypes
import msgpack
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx, serialization

from lastcli import containers
from lastcli.errors import InputError
from tests.containers.samples import contents, copy, put, same_bits
from tests.hostile.msgpack import array_ext


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)])
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)


@pytest.fixture
def model():
    return Model(nnx.Rngs(0))


def restored(path):
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path)


def equal_trees(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_an_nnx_state_of_orbax_is_read_and_written_with_the_same_leaves(model, tmp_path):
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(7, args=ocp.args.StandardSave(nnx.state(model, (nnx.Param, nnx.BatchStat))))
        manager.wait_until_finished()
    with containers.open_reader(tmp_path / "run") as reader:
        assert "layers/0/kernel" in reader.tensors
        assert "norm/mean" in reader.tensors
        assert not any("value" in name for name in reader.tensors)
        copy(reader, tmp_path / "again", template=reader)
        copy(reader, tmp_path / "flat.safetensors", template=reader)
    with containers.open_reader(tmp_path / "flat.safetensors") as reader:
        copy(reader, tmp_path / "third", template=reader)
    original = restored(tmp_path / "run" / "7" / "default")
    assert "value" in original["layers"]["0"]["kernel"]
    equal_trees(restored(tmp_path / "again"), original)
    equal_trees(restored(tmp_path / "third"), original)


def test_the_optimizer_beside_an_nnx_state_goes(model, tmp_path):
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    tree = {"model": nnx.state(model, nnx.Param), "training": nnx.state(optimizer)}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "x", tree)
    with containers.open_reader(tmp_path / "x") as reader:
        assert [name for name in reader.tensors if not name.startswith("model/")] == ["training/step"]
        assert "optimizer state 'training/opt_state' (13 tensors" in reader.dropped[0]


def test_numbers_as_keys_come_back_as_numbers(model, tmp_path):
    tree = nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    tree = jax.tree.map(np.asarray, tree) | {"a": {-3: {"a": 1}, 9: [np.ones(1), 2]}, "empty": {5: {}}}
    assert 0 in tree["layers"]
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    paths = [tmp_path / name for name in ("x.msgpack", "y.msgpack", "z.safetensors", "o", "back.msgpack")]
    for source, target in itertools.pairwise(paths):
        with containers.open_reader(source) as reader:
            assert "layers/0/kernel" in reader.tensors
            copy(reader, target, template=reader)
    for path in (paths[1], paths[4]):
        back = serialization.msgpack_restore(path.read_bytes())
        equal_trees(back, tree)
        assert back["empty"] == {5: {}}


def test_boxed_parameters_of_linen_are_plain_names(tmp_path):
    boxed = linen.Partitioned(np.ones((2, 3), np.float32), names=("a", None))
    data = serialization.to_bytes({"params": {"kernel": boxed, "value": {"bias": np.ones(3, np.float32)}}})
    (tmp_path / "x.msgpack").write_bytes(data)
    assert list(contents(tmp_path / "x.msgpack")) == ["params/kernel", "params/value/bias"]
    with containers.open_reader(tmp_path / "x.msgpack") as reader:
        copy(reader, tmp_path / "y.msgpack", template=reader)
    assert (tmp_path / "y.msgpack").read_bytes() == data


def test_a_number_and_its_text_in_one_map_are_refused(tmp_path):
    (tmp_path / "x.msgpack").write_bytes(msgpack.packb({1: array_ext(), "1": array_ext()}))
    with pytest.raises(InputError, match="two leaves are both named '1'"):
        containers.open_reader(tmp_path / "x.msgpack")


def test_a_flat_name_that_ends_as_a_variable_does_becomes_one(tmp_path):
    arrays = {"w/value": np.arange(3).astype(ml_dtypes.bfloat16), "v": np.ones(2)}
    for name in ("x.msgpack", "o"):
        put(tmp_path / name, arrays)
        same_bits(contents(tmp_path / name), {"w": arrays["w/value"], "v": arrays["v"]})
    back = serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    assert list(back["w"]) == ["value"]
