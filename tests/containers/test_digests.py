"""Every changed byte of what `last` wrote is found when it is read."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save_file

from lastcli import containers
from lastcli.containers import CONTAINERS, DIGESTS_KEY
from lastcli.errors import InputError
from tests.containers.samples import contents, copy, every_dtype, put, same_bits

ARRAYS = {"a/w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int16)}
OUTPUTS = {"safetensors": "x.safetensors", "shards": "x", "msgpack": "x.msgpack", "orbax": "x", "torch": "x.pt"}


@pytest.fixture(params=OUTPUTS)
def output(request, tmp_path):
    """(path, options of `put`) of an output of every container."""
    if request.param == "torch":
        pytest.importorskip("torch")
    return tmp_path / OUTPUTS[request.param], {"shard_bytes": 12} if request.param == "shards" else {}


def sha256(array: np.ndarray) -> str:
    """The digest, said in another way."""
    head = array.dtype.name + str([int(axis) for axis in array.shape])
    return hashlib.sha256(head.encode() + array.tobytes()).hexdigest()


def test_every_tensor_has_its_sha256(output):
    path, options = output
    arrays = every_dtype()
    put(path, arrays, {"k": "v"}, **options)
    with containers.open_reader(path) as reader:
        assert dict(reader.digests) == {name: sha256(array) for name, array in arrays.items()}
        assert DIGESTS_KEY not in reader.metadata
        assert reader.metadata["k"] == "v"
    same_bits(contents(path), arrays)


def test_every_changed_byte_of_a_tensor_is_found(output):
    path, options = output
    put(path, ARRAYS, **options)
    found = 0
    for file in [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file()):
        whole = file.read_bytes()
        for name, array in ARRAYS.items():
            at = whole.find(array.tobytes())
            for position in range(at, at + array.nbytes) if at >= 0 else ():
                changed = bytearray(whole)
                changed[position] ^= 1
                file.write_bytes(changed)
                with containers.open_reader(path) as reader, pytest.raises(InputError, match=f"'{name}' is not as it"):
                    reader.read(name)
                found += 1
        file.write_bytes(whole)
    assert found == sum(array.nbytes for array in ARRAYS.values())


def test_the_same_bytes_under_another_shape_or_dtype_are_found(tmp_path):
    path = tmp_path / "x.safetensors"
    put(path, ARRAYS)
    whole = path.read_bytes()
    for old, new in ((b"[2,3]", b"[3,2]"), (b'"F32"', b'"I32"')):
        assert whole.count(old) == 1
        path.write_bytes(whole.replace(old, new))
        with containers.open_reader(path) as reader, pytest.raises(InputError, match="not as it was written"):
            reader.read("a/w")


def test_digests_of_other_tensors_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    put(path, ARRAYS)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"a/w":{', b'"a/v":{'))
    with pytest.raises(InputError, match="names other tensors than the file has"):
        containers.open_reader(path)


@pytest.mark.parametrize("text", ["[]", '{"a": 3}', '{"a": "zz"}', "{", '{"a":"%s","b":3}' % ("0" * 64), "\ud800"])
def test_digests_that_are_none_are_refused(text, tmp_path):
    header = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {DIGESTS_KEY: text}}
    raw = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    with pytest.raises(InputError, match=r"last\.digests|Unicode"):
        containers.open_reader(tmp_path / "x.safetensors")


def test_a_file_without_digests_reads_as_before_and_gets_them(tmp_path):
    save_file(dict(ARRAYS), tmp_path / "x.safetensors", {"k": "v"})
    with containers.open_reader(tmp_path / "x.safetensors") as reader:
        assert dict(reader.digests) == {}
        copy(reader, tmp_path / "y.safetensors")
    with containers.open_reader(tmp_path / "y.safetensors") as reader:
        assert dict(reader.digests) == {name: sha256(array) for name, array in ARRAYS.items()}
        assert dict(reader.metadata) == {"k": "v"}


@pytest.mark.parametrize(
    "kind", [name for name, c in CONTAINERS.items() if c.write is not None and not c.keeps_metadata]
)
def test_tensors_are_never_paired_with_the_description_of_others(kind, tmp_path):
    if kind == "torch":
        pytest.importorskip("torch")
    suffix = CONTAINERS[kind].suffixes[0]
    put(tmp_path / f"x{suffix}", ARRAYS)
    put(tmp_path / f"y{suffix}", {name: array + 1 for name, array in ARRAYS.items()})
    (tmp_path / "y.json").replace(tmp_path / "x.json")
    with containers.open_reader(tmp_path / f"x{suffix}") as reader:
        for name in ARRAYS:
            with pytest.raises(InputError, match="its description belongs to another file"):
                reader.read(name)


def test_the_sidecar_of_another_container_says_nothing_of_the_tensors(tmp_path):
    pytest.importorskip("torch")
    put(tmp_path / "x.pt", ARRAYS, {"k": "torch"})
    put(tmp_path / "x.msgpack", {"a/w": np.zeros(3)}, {"k": "msgpack"}, force=True)
    with containers.open_reader(tmp_path / "x.pt") as reader:
        assert (dict(reader.digests), dict(reader.metadata)) == ({}, {})
    same_bits(contents(tmp_path / "x.pt"), ARRAYS)
    with containers.open_reader(tmp_path / "x.msgpack") as reader:
        assert dict(reader.metadata) == {"k": "msgpack"}


def test_a_large_file_is_written_one_tensor_at_a_time(tmp_path):
    info = containers.TensorInfo("", (2**21,), "float64", 2**24)

    def source(number: int) -> containers.TensorSource:
        named = containers.TensorInfo(f"t{number}", info.shape, info.dtype, info.nbytes)
        return containers.TensorSource(named, lambda: np.full(info.shape, float(number)))

    tracemalloc.start()
    containers.write(tmp_path / "x.safetensors", [source(number) for number in range(6)], metadata={})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * info.nbytes


def test_digests_of_earlier_versions_are_passed_over(tmp_path):
    header = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    raw = json.dumps({**header, "__metadata__": {DIGESTS_KEY: '{"a":"%s"}' % ("0" * 32)}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    with containers.open_reader(tmp_path / "x.safetensors") as reader:
        assert (dict(reader.digests), dict(reader.metadata)) == ({}, {})
        assert reader.read("a") == [0]
