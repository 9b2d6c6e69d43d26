"""safetensors against its reference library, shards, and memory."""

from __future__ import annotations

import json
import tracemalloc

import ml_dtypes  # noqa: F401 (registers bfloat16 with NumPy, which the library needs)
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from lastcli import containers
from lastcli.containers import TensorInfo, TensorSource, inputs
from lastcli.errors import InputError, UsageError
from tests.containers.samples import contents, copy, every_dtype, put, same_bits


def for_numpy():
    """The library's NumPy reader knows no float8."""
    return {name: array for name, array in every_dtype().items() if not array.dtype.name.startswith("float8")}


def test_the_library_reads_what_is_written(tmp_path):
    arrays = for_numpy()
    put(tmp_path / "x.safetensors", arrays, {"k": "v"})
    same_bits(load_file(tmp_path / "x.safetensors"), arrays)
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        metadata = file.metadata()
    assert set(json.loads(metadata.pop("last.digests"))) == set(arrays)
    assert metadata == {"k": "v"}


def test_what_the_library_writes_is_read(tmp_path):
    arrays = every_dtype()
    save_file(arrays, tmp_path / "x.safetensors", {"k": "v"})
    same_bits(contents(tmp_path / "x.safetensors"), arrays)
    with containers.open_reader(tmp_path / "x.safetensors") as reader:
        assert reader.metadata == {"k": "v"}
        assert reader.extras == {}


def test_order_of_names_is_kept_and_tensors_are_aligned(tmp_path):
    arrays = {
        "z": np.ones(3, np.int8),
        "b": np.ones(5, np.float64),
        "a": np.ones(3, np.float16),
        "y": np.ones(1, np.int32),
    }
    put(tmp_path / "x.safetensors", arrays)
    with containers.open_reader(tmp_path / "x.safetensors") as reader:
        assert list(reader.tensors) == ["z", "b", "a", "y"]
    raw = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    for name, array in arrays.items():
        assert header[name]["data_offsets"][0] % array.itemsize == 0


def test_no_tensors_at_all(tmp_path):
    put(tmp_path / "x.safetensors", {})
    assert contents(tmp_path / "x.safetensors") == {}


def test_shards(tmp_path):
    arrays = for_numpy()
    receipt = put(
        tmp_path / "out", arrays, {"last.description": "{}", "format": "np"}, extras={"step": 3}, shard_bytes=64
    )
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert receipt.kind == "safetensors"
    assert receipt.bytes == sum((tmp_path / "out" / name).stat().st_size for name in files)
    assert len(files) > 3
    assert files[-1] == "model.safetensors.index.json"
    same_bits(contents(tmp_path / "out"), arrays)
    same_bits(contents(tmp_path / "out" / files[-1]), arrays)
    with containers.open_reader(tmp_path / "out") as reader:
        assert reader.metadata == {"last.description": "{}", "format": "np"}
        assert reader.extras == {"step": 3}
        assert list(reader.tensors) == list(arrays)
        copy(reader, tmp_path / "one.safetensors")
    same_bits(load_file(tmp_path / "one.safetensors"), arrays)
    for name in files[:-1]:
        shard = load_file(tmp_path / "out" / name)
        assert len(shard) == 1 or sum(array.nbytes for array in shard.values()) <= 64


def test_shards_of_others_without_metadata(tmp_path):
    save_file({"a": np.ones(2)}, tmp_path / "one.safetensors", {"format": "pt", "x": "1"})
    save_file({"b": np.zeros(2)}, tmp_path / "two.safetensors", {"format": "pt", "x": "2"})
    index = {"weight_map": {"b": "two.safetensors", "a": "one.safetensors"}}
    (tmp_path / "x.safetensors.index.json").write_text(json.dumps(index))
    same_bits(contents(tmp_path), {"a": np.ones(2), "b": np.zeros(2)})
    with containers.open_reader(tmp_path) as reader:
        assert reader.metadata == {"format": "pt"}


def whose(path):
    with safe_open(path, "np") as file:
        return (file.metadata() or {}).get("format")


def test_what_comes_from_torch_is_said_to_be_torchs(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "clf.pt")
    with containers.open_reader(tmp_path / "clf.pt") as reader:
        copy(reader, tmp_path / "one.safetensors", template=reader)
        copy(reader, tmp_path / "shards", template=reader, shard_bytes=8)
        copy(reader, tmp_path / "way.msgpack")
    assert whose(tmp_path / "one.safetensors") == "pt"
    assert {whose(path) for path in (tmp_path / "shards").glob("*.safetensors")} == {"pt"}
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["format"] == "pt"
    with containers.open_reader(tmp_path / "way.msgpack") as reader:
        copy(reader, tmp_path / "flax.safetensors", template=reader)
    assert whose(tmp_path / "flax.safetensors") is None


@pytest.mark.parametrize("said", ["pt", "np", "flax"])
def test_a_format_that_is_said_stays(said, tmp_path):
    pytest.importorskip("torch")
    put(tmp_path / "x.safetensors", {"a": np.ones(2)}, {"format": said})
    for source, target in (("x.safetensors", "y.pt"), ("y.pt", "z.safetensors")):
        with containers.open_reader(tmp_path / source) as reader:
            copy(reader, tmp_path / target, template=reader)
    assert whose(tmp_path / "z.safetensors") == said


def test_links_of_a_hub_cache_are_followed(tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    save_file({"a": np.ones(2)}, blobs / "0123")
    (snapshot / "m.safetensors").symlink_to("../../blobs/0123")
    (snapshot / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "m.safetensors"}}))
    same_bits(contents(snapshot), {"a": np.ones(2)})


def test_a_folder_with_one_file_and_no_index(tmp_path):
    put(tmp_path / "model.safetensors", {"a": np.ones(2)})
    same_bits(contents(tmp_path), {"a": np.ones(2)})
    put(tmp_path / "other.safetensors", {"a": np.ones(2)})
    with pytest.raises(InputError, match="2 safetensors files and no index"):
        containers.open_reader(tmp_path)


def test_shards_of_another_container_are_refused(tmp_path):
    with pytest.raises(UsageError, match="Shards"):
        put(tmp_path / "x.msgpack", {"a": np.ones(2)}, kind="msgpack", shard_bytes=5)


@pytest.mark.parametrize("name", ["x.safetensors", "x.msgpack", "x"])
def test_one_tensor_in_memory_at_a_time(name, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "PIECE", 2**18)
    size, count = 2_000_000, 8
    info = [TensorInfo(f"t{index}", (size,), "uint8", size) for index in range(count)]
    sources = [TensorSource(item, lambda: np.ones(size, np.uint8)) for item in info]
    containers.write(tmp_path / f"warm{name}", sources, metadata={})
    tracemalloc.start()
    try:
        containers.write(tmp_path / name, sources, metadata={})
        with containers.open_reader(tmp_path / name) as reader:
            copy(reader, tmp_path / f"copy{name}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * size


@pytest.mark.parametrize("shard_bytes", [None, 2**20])
def test_a_tensor_that_is_copied_is_never_whole_in_memory(tmp_path, shard_bytes, monkeypatch):
    """12 MB in pieces of 256 KiB: read, hashed, written, read back; the input's digest is looked at too."""
    monkeypatch.setattr(inputs, "PIECE", 2**18)
    put(tmp_path / "a", {"w": np.arange(3_000_000, dtype=np.float32), "b": np.ones(5)}, shard_bytes=2**20)
    tracemalloc.start()
    try:
        with containers.open_reader(tmp_path / "a") as reader:
            copy(reader, tmp_path / ("b" if shard_bytes else "b.safetensors"), shard_bytes=shard_bytes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.parametrize("wrong", ["w", "b"])
def test_a_copied_tensor_that_is_not_as_it_was_written_is_refused(tmp_path, wrong, monkeypatch):
    monkeypatch.setattr(inputs, "PIECE", 64)
    put(tmp_path / "a.safetensors", {"w": np.ones(100), "b": np.zeros(50, np.float32)})
    data = bytearray((tmp_path / "a.safetensors").read_bytes())
    data[-1 if wrong == "b" else -400] ^= 1
    (tmp_path / "a.safetensors").write_bytes(data)
    with (
        containers.open_reader(tmp_path / "a.safetensors") as reader,
        pytest.raises(InputError, match=f"'{wrong}' is not"),
    ):
        copy(reader, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_five_thousand_tensors(tmp_path):
    data = np.zeros(1, np.uint8)
    put(tmp_path / "out", {f"layer.{index}.w": data for index in range(5_000)}, shard_bytes=2_500)
    with containers.open_reader(tmp_path / "out") as reader:
        assert len(reader.tensors) == 5_000


@pytest.mark.parametrize("said", ["null", "{}"])
def test_metadata_that_are_null_are_none(tmp_path, said):
    header = f'{{"__metadata__":{said},"w":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}'.encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.ones(2, np.float32).tobytes())
    same_bits(contents(path), {"w": np.ones(2, np.float32)})
    same_bits(load_file(path), {"w": np.ones(2, np.float32)})
    with containers.open_reader(path) as reader:
        assert reader.metadata == {}


def test_the_smallest_beginning_that_can_be_a_header():
    from lastcli.containers.safetensors.reader import looks_like_safetensors

    start = (1).to_bytes(8, "little") + b"{"
    assert looks_like_safetensors(start, 9)
    assert not looks_like_safetensors(start[:8], 9)
    assert not looks_like_safetensors(start, 8)
