"""The sha256 of a folder of shards is what its definition says, whoever hashed the tensors."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

import lastcli
from lastcli import containers
from lastcli.containers import hashing as hashing_module
from lastcli.containers import readback
from lastcli.containers.base import TensorSource
from lastcli.containers.hashing import FileHash
from lastcli.containers.safetensors.sharded import ShardedReader
from lastcli.containers.safetensors.shards_hash import ShardsHash
from lastcli.errors import InputError

ARRAYS = {name: np.arange(size, dtype=dtype) for name, size, dtype in
          (("a", 50, "float32"), ("b", 7, "int8"), ("empty", 0, "float32"), ("c", 30, "float64"))}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    sources = [TensorSource.of(name, array) for name, array in ARRAYS.items()]
    containers.write(path, sources, metadata={}, shard_bytes=220, companions={"notes.txt": b"of the model"})
    return path


def defined(folder):
    """By hand: paths; of shards their headers and the sha256 of dtype, shape and bytes of every tensor; of others that
    of their content."""
    whole = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        whole.update(file.name.encode() + b"\0")
        if file.suffix == ".safetensors":
            begin = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(data[8:begin])
            header.pop("__metadata__", None)
            spans = sorted((*item["data_offsets"], name) for name, item in header.items())
            whole.update(data[:begin])
            for first, last, name in spans:
                array = ARRAYS[name]
                assert array.tobytes() == data[begin + first : begin + last]
                own = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode() + array.tobytes())
                whole.update(own.hexdigest().encode())
        else:
            whole.update(hashlib.sha256(data).hexdigest().encode())
    return whole.hexdigest()


@pytest.mark.parametrize("copied", [(), ("a",), tuple(ARRAYS)])
def test_it_is_what_its_definition_says(folder, monkeypatch, copied):
    monkeypatch.setattr(hashing_module.inputs, "PIECE", 64)
    with containers.open_reader(folder) as reader:
        assert len(reader.shards) == 2
        hashing = containers.hashing_of(reader)
        hashing.begin(copied)
        assert hashing.result() == defined(folder)
        hashing.stop()


def test_of_a_tensor_that_is_copied_the_fingerprint_is_taken_from_the_copy(folder, tmp_path, monkeypatch):
    hashed = []

    def once(self, names):
        hashed.extend(names)
        return hash_them(self, names)

    hash_them = ShardsHash._hash
    monkeypatch.setattr(ShardsHash, "_hash", once)
    monkeypatch.setattr(readback, "fingerprint_of", None)
    with containers.open_reader(folder) as reader:
        hashing = containers.hashing_of(reader)
        sources = [TensorSource.copied(reader, name) for name in ("a", "b", "empty")]
        hashing.begin([source.info.name for source in sources])
        late = {}

        def settled():
            late["sha256"] = hashing.result()
            return {"said": late["sha256"]}

        containers.write(tmp_path / "out", sources, metadata={"said": "0" * 64}, late=settled, shard_bytes=220)
    assert hashed == ["c", folder / "model.safetensors.index.json", folder / "notes.txt"]
    assert late["sha256"] == defined(folder)


def test_a_change_of_any_byte_changes_it(folder):
    def digest():
        with containers.open_reader(folder) as reader:
            return containers.hashing_of(reader).result()

    before = digest()
    for file in sorted(folder.iterdir()):
        data = bytearray(file.read_bytes())
        # the last byte of a shard is one of a tensor; of the index and of a text a byte of white space is another one
        data = data[:-1] + bytes([data[-1] ^ 1]) if file.suffix == ".safetensors" else data + b" "
        whole = file.read_bytes()
        file.write_bytes(data)
        assert digest() != before, file.name
        file.write_bytes(whole)
    assert digest() == before
    (folder / "notes.txt").rename(folder / "other.txt")
    assert digest() != before


def test_an_index_is_its_folder(folder):
    with ShardedReader(folder / "model.safetensors.index.json") as reader:
        assert containers.hashing_of(reader).result() == defined(folder)


def test_what_is_known_is_known_when_the_folder_is_closed_or_changed(folder):
    with containers.open_reader(folder) as reader:
        hashing = containers.hashing_of(reader)
        wanted = hashing.result()
    hashing.stop()
    (folder / "notes.txt").write_text("changed")
    assert hashing.result() == wanted == hashing.result()


def test_a_shard_that_is_gone_or_cut_short_is_an_error(folder):
    with containers.open_reader(folder) as reader:
        hashing = containers.hashing_of(reader)
        (folder / "gone").symlink_to("nowhere")
        shard = sorted(folder.glob("*.safetensors"))[0]
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(InputError, match="ends inside tensor"):
            hashing.result()


def test_a_record_of_the_contents_as_they_are_still_counts(tmp_path):
    checkpoint = tmp_path / "model"
    lastcli.convert("bundled", checkpoint, shard_bytes=20_000)
    with lastcli.open(checkpoint) as model:
        ways = {model.sha256, FileHash(checkpoint).result()}
        assert len(ways) == 2
        assert all(model.hashing.is_of(way) for way in ways)
        assert not model.hashing.is_of("0" * 64)
