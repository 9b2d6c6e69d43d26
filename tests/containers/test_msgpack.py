"""flax msgpack against flax itself."""

from __future__ import annotations

import json

import ml_dtypes
import msgpack
import numpy as np
import pytest
from flax import serialization

from lastcli import containers
from lastcli.containers.msgpack import reader as msgpack_read
from lastcli.containers.msgpack import writer as msgpack_write
from lastcli.errors import InputError
from tests.containers.samples import EXTRAS, contents, copy, every_dtype, put, same_bits
from tests.hostile.msgpack import array_ext


def test_flax_restores_what_is_written(tmp_path):
    arrays = every_dtype()
    put(tmp_path / "x.msgpack", arrays, extras=EXTRAS)
    tree = serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    assert tree["step"] == EXTRAS["step"]
    assert tree["nothing"] is None
    assert tree["empty"] == {}
    assert tree["cfg"] == {"width": 7}
    assert tree["rates"] == [0.1, 0.2]
    for name, array in arrays.items():
        leaf = tree
        for part in name.split("/"):
            leaf = leaf[part]
        assert leaf.dtype == array.dtype
        assert leaf.tobytes() == array.tobytes()


def test_a_file_of_flax_is_copied_byte_for_byte(tmp_path):
    tree = {
        "params": {
            "enc": {"kernel": np.ones((3, 4), np.float32), "b": np.ones(300, ml_dtypes.bfloat16)},
            "s": np.float32(2),
        },
        "batch_stats": {"mean": np.zeros(70_000, np.float16), "one": np.ones((), np.int32)},
        "step": 70_000,
        "text": "é" * 40,
        "true": True,
        "z": 1 + 2j,
    }
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    with containers.open_reader(tmp_path / "x.msgpack") as reader:
        assert reader.extras == {"true": True, "step": 70_000, "text": "é" * 40, "z": 1 + 2j}
        copy(reader, tmp_path / "y.msgpack", template=reader)
    assert (tmp_path / "y.msgpack").read_bytes() == (tmp_path / "x.msgpack").read_bytes()


def test_a_train_state_loses_its_optimizer_and_says_so(tmp_path):
    moments = {"0": {"count": np.ones((), np.int32), "mu": {"w": np.ones(3)}, "nu": {"w": np.ones(3)}}, "1": {}}
    state = {"step": 5, "params": {"w": np.ones(3)}, "opt_state": moments, "batch_stats": {"m": np.ones(2)}}
    for tree in (state, {"model": state, "config": {"lr": 0.1}}):
        (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize(tree))
        with containers.open_reader(tmp_path / "x.msgpack") as reader:
            assert {name.removeprefix("model/") for name in reader.tensors} == {"params/w", "batch_stats/m"}
            assert len(reader.dropped) == 1
            assert "opt_state' (3 tensors, 52 bytes)" in reader.dropped[0]
            assert 5 in reader.extras.values()


def test_the_old_flax_optimizer_is_dropped_too(tmp_path):
    tree = {"target": {"params": {"w": np.ones(3)}}, "state": {"step": 1, "param_states": {"w": {"mu": np.ones(3)}}}}
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    with containers.open_reader(tmp_path / "x.msgpack") as reader:
        assert list(reader.tensors) == ["target/params/w"]
        assert "'state'" in reader.dropped[0]


def test_a_parameter_called_opt_state_is_kept_where_there_are_no_params(tmp_path):
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize({"opt_state": {"w": np.ones(3)}}))
    with containers.open_reader(tmp_path / "x.msgpack") as reader:
        assert list(reader.tensors) == ["opt_state/w"]


def test_chunked_arrays_as_flax_writes_and_reads_them(tmp_path, monkeypatch):
    array = np.arange(300, dtype=np.float32).reshape(3, 100)
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 256)
    monkeypatch.setattr(msgpack_write, "MAX_CHUNK", 256)
    data = serialization.msgpack_serialize({"params": {"w": array, "b": np.ones(3)}})
    assert b"__msgpack_chunked_array__" in data
    (tmp_path / "x.msgpack").write_bytes(data)
    with containers.open_reader(tmp_path / "x.msgpack") as reader:
        same_bits({name: reader.read(name) for name in reader.tensors}, {"params/w": array, "params/b": np.ones(3)})
        copy(reader, tmp_path / "y.msgpack")
    assert (tmp_path / "y.msgpack").read_bytes() == data


def test_lists_and_keys_with_a_slash_survive_a_flat_container(tmp_path):
    tree = {"a/b": {"w": np.ones(2)}, "blocks": [{"w": np.zeros(2)}, 3, {"w": np.ones(1)}], "": {"x": np.ones(1)}}
    data = serialization.msgpack_serialize(tree)
    (tmp_path / "x.msgpack").write_bytes(data)
    with containers.open_reader(tmp_path / "x.msgpack") as reader:
        assert set(reader.tensors) == {"a/b/w", "blocks/0/w", "blocks/2/w", "/x"}
        copy(reader, tmp_path / "x.safetensors")
    with containers.open_reader(tmp_path / "x.safetensors") as reader:
        copy(reader, tmp_path / "y.msgpack")
    # the file itself shows its paths
    assert set(json.loads((tmp_path / "y.json").read_text())["last"]["metadata"]) == {"last.container", "last.digests"}
    back = serialization.msgpack_restore((tmp_path / "y.msgpack").read_bytes())
    assert set(back) == set(tree)
    np.testing.assert_array_equal(back["a/b"]["w"], np.ones(2))
    assert isinstance(back["blocks"], list)
    assert back["blocks"][1] == 3
    np.testing.assert_array_equal(back["blocks"][2]["w"], np.ones(1))


def test_only_the_tensors_asked_for_are_read(tmp_path, monkeypatch):
    put(tmp_path / "x.msgpack", {f"t{index}": np.ones(100_000, np.float32) for index in range(10)})
    seen = []
    from lastcli.containers.inputs import RandomAccess

    plain = RandomAccess.read_into
    monkeypatch.setattr(RandomAccess, "read_into", lambda self, b, *a: (seen.append(len(b)), plain(self, b, *a))[1])
    with containers.open_reader(tmp_path / "x.msgpack") as reader:
        assert sum(seen) < 1_000_000
        seen.clear()
        reader.read("t3")
    assert seen == [400_000]


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn"])
def test_extended_dtypes_are_exact(name, tmp_path):
    array = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, name))
    put(tmp_path / "x.msgpack", {"w": array})
    assert contents(tmp_path / "x.msgpack")["w"].tobytes() == array.tobytes()


def test_a_dtype_that_was_written_as_bytes_is_the_same(tmp_path):
    (tmp_path / "x.msgpack").write_bytes(msgpack.packb({"w": array_ext(dtype=b"float32")}))
    same_bits(contents(tmp_path / "x.msgpack"), {"w": np.zeros(2, np.float32)})


def test_text_over_the_limit_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x.msgpack").write_bytes(msgpack.packb({"w": array_ext(), "note": "x" * 99}))
    monkeypatch.setattr(msgpack_read, "_MAX_TEXT", 98)
    with pytest.raises(InputError, match="'note': text or bytes of 99 bytes are over the limit of 98"):
        containers.open_reader(tmp_path / "x.msgpack")


@pytest.mark.parametrize("count", [1, 16, 2**8 - 1, 2**8, 2**16 - 1, 2**16])
def test_lengths_are_said_as_msgpack_says_them(count):
    data = bytes(count)
    assert msgpack_write._bin_header(count) + data == msgpack.packb(data)
    assert msgpack_write._ext_header(1, count) + data == msgpack.packb(msgpack.ExtType(1, data))


def test_an_empty_list_is_no_empty_tree(tmp_path):
    data = serialization.msgpack_serialize({"w": np.ones(2), "a": [], "b": {}})
    path = tmp_path / "x.msgpack"
    path.write_bytes(data)
    with containers.open_reader(path) as reader:
        copy(reader, tmp_path / "y.msgpack")
    back = serialization.msgpack_restore((tmp_path / "y.msgpack").read_bytes())
    assert back["a"] == []
    assert type(back["a"]) is list
    assert back["b"] == {}
