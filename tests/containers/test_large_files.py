"""What makes large files fast, and promises no less: bytes looked at once, copies read back against their source."""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers import TensorSource, atomic, filesystem, flushing, inputs, readback, safetensors
from lastcli.containers.safetensors.reader import Stretch
from lastcli.errors import InputError, OutputError
from tests.containers.samples import contents, copy, put, same_bits

ARRAYS = {"w": np.arange(50, dtype=np.float32), "b": np.arange(7, dtype=np.uint8), "e": np.zeros((0, 2))}


@pytest.fixture(params=["x.safetensors", "x"])
def source(request, tmp_path, monkeypatch):
    """A file, and a folder of shards, read and compared in pieces of 64 bytes."""
    monkeypatch.setattr(inputs, "PIECE", 64)
    monkeypatch.setattr(safetensors.reader, "COMPARED", 64)
    put(tmp_path / request.param, ARRAYS, shard_bytes=None if "." in request.param else 100)
    return tmp_path / request.param


def damage(monkeypatch, name, position):
    """Change a byte of a tensor once its file is put on the disk, as a disk may."""
    flush, fsync = atomic.Stage.flush, readback.fsync

    def change(file):
        data = bytearray(file.read_bytes())
        at = data.find(ARRAYS[name].tobytes())
        if at >= 0:
            data[at + position] ^= 1
            file.write_bytes(data)

    def of_file(self):
        flush(self)
        if self.temp.is_file():
            change(self.temp)

    def of_shard(file):
        fsync(file)
        change(file)

    monkeypatch.setattr(atomic.Stage, "flush", of_file)
    monkeypatch.setattr(readback, "fsync", of_shard)


@pytest.mark.parametrize("shard_bytes", [None, 100])
@pytest.mark.parametrize(("name", "position"), [("w", 0), ("w", 63), ("w", 64), ("w", 199), ("b", 0), ("b", 6)])
def test_a_byte_of_a_copy_that_is_not_on_the_disk_as_it_was_read_is_found(
    source, tmp_path, monkeypatch, name, position, shard_bytes
):
    damage(monkeypatch, name, position)
    with (
        containers.open_reader(source) as reader,
        pytest.raises(OutputError, match=f"tensor '{name}' read back differs from what was written"),
    ):
        copy(reader, tmp_path / ("y" if shard_bytes else "y.safetensors"), shard_bytes=shard_bytes)
    assert {item.name for item in tmp_path.iterdir()} == {source.name}


@pytest.mark.parametrize("then", ["other bytes", "fewer pieces", "nothing", "an error"])
def test_a_source_that_is_another_one_by_now_is_no_fault_of_the_output(tmp_path, then):
    whole = np.arange(50, dtype=np.float32)
    calls = []

    def pieces():
        calls.append(None)
        data = whole.view(np.uint8).data
        if len(calls) == 1:
            return iter([data[:100], data[100:]])
        if then == "an error":
            raise InputError("the input is gone")
        return iter({"other bytes": [data[:100], data[:100]], "fewer pieces": [data[:200]], "nothing": []}[then])

    source = replace(TensorSource.of("w", whole), pieces=pieces)
    containers.write(tmp_path / "x.safetensors", [source], metadata={})
    same_bits(contents(tmp_path / "x.safetensors"), {"w": whole})
    assert len(calls) == 2


@pytest.mark.parametrize("then", ["nothing", "an error"])
def test_without_its_source_a_copy_is_held_against_its_digest(tmp_path, monkeypatch, then):
    whole, calls = ARRAYS["w"], []

    def pieces():
        calls.append(None)
        if len(calls) > 1 and then == "an error":
            raise InputError("the input is gone")
        return iter([whole.view(np.uint8).data] if len(calls) == 1 else [])

    damage(monkeypatch, "w", 5)
    with pytest.raises(OutputError, match="tensor 'w' read back differs"):
        containers.write(tmp_path / "x.safetensors", [replace(TensorSource.of("w", whole), pieces=pieces)], metadata={})


def test_a_copy_is_read_back_without_its_sha256(source, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(readback, "fingerprint_of", lambda reader, info: hashed.append(info.name))
    with containers.open_reader(source) as reader:
        copy(reader, tmp_path / "y.safetensors")
    assert hashed == []
    same_bits(contents(tmp_path / "y.safetensors"), ARRAYS)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 129])
def test_stretches_of_two_files_are_compared_to_the_last_byte(tmp_path, monkeypatch, count):
    monkeypatch.setattr(safetensors.reader, "COMPARED", 64)

    def stretch(name, begin, data):
        (tmp_path / name).write_bytes(bytes(begin) + data + b"x")
        return Stretch(inputs.RandomAccess(tmp_path / name), begin, len(data), "tensor")

    data = bytes(range(1, count + 1))
    one = stretch("one", 3, data)
    assert one.same(stretch("two", 5, data))
    assert not one.same(stretch("two", 5, data + b"x"))
    for position in range(count):
        other = bytearray(data)
        other[position] ^= 128
        assert not one.same(stretch("two", 5, other))
    assert b"".join(one) == data


def test_a_stretch_of_a_file_that_was_cut_short_is_an_error(tmp_path):
    (tmp_path / "x").write_bytes(bytes(9))
    whole, short = (Stretch(inputs.RandomAccess(tmp_path / "x"), 0, count, "tensor 'w'") for count in (10, 10))
    with pytest.raises(InputError, match="ends inside tensor 'w'"):
        whole.same(short)


@pytest.mark.parametrize("shard_bytes", [None, 100])
def test_shards_are_compared_once_and_while_late_metadata_are_waited_for(source, tmp_path, monkeypatch, shard_bytes):
    # the metadata are as long before they are known
    put(source, ARRAYS, {"k": "???"}, shard_bytes=None if source.is_file() else 100, force=True)
    compared, all_are, real = [], threading.Event(), readback._is_copy

    def is_copy(reader, source):
        compared.append(source.info.name)
        if len(compared) == len(ARRAYS):
            all_are.set()
        return real(reader, source)

    def late():
        assert all_are.wait(30) if shard_bytes else not compared
        return {"k": "now"}

    monkeypatch.setattr(readback, "_is_copy", is_copy)
    out = tmp_path / ("y" if shard_bytes else "y.safetensors")
    with containers.open_reader(source) as reader:
        copy(reader, out, late=late, shard_bytes=shard_bytes)
    assert sorted(compared) == sorted(ARRAYS)
    same_bits(contents(out), ARRAYS)
    with containers.open_reader(out) as reader:
        assert reader.metadata == {"k": "now"}


@pytest.mark.parametrize(("name", "position"), [("w", 0), ("w", 199), ("b", 6)])
def test_a_damaged_shard_is_found_whose_metadata_come_late(source, tmp_path, monkeypatch, name, position):
    put(source, ARRAYS, {"k": "???"}, shard_bytes=None if source.is_file() else 100, force=True)
    damage(monkeypatch, name, position)
    with (
        containers.open_reader(source) as reader,
        pytest.raises(OutputError, match=f"tensor '{name}' read back differs from what was written"),
    ):
        copy(reader, tmp_path / "y", late=lambda: {"k": "now"}, shard_bytes=100)
    assert {item.name for item in tmp_path.iterdir()} == {source.name}


def test_a_large_file_is_flushed_while_it_is_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(flushing, "EARLY", 64)
    flushed, real = [], os.fsync

    def fsync(descriptor):
        flushed.append((threading.current_thread().name, os.fstat(descriptor).st_size))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with containers.open_reader(source) as reader:
        copy(reader, tmp_path / "y.safetensors")
    names = [name for name, _ in flushed]
    assert names[0].startswith("last-flush")
    assert "MainThread" in names  # at the end, header and all
    same_bits(contents(tmp_path / "y.safetensors"), ARRAYS)


def test_an_early_flush_that_fails_is_an_error(source, tmp_path, monkeypatch):
    monkeypatch.setattr(flushing, "EARLY", 64)
    real = os.fsync

    def fsync(descriptor):
        # a later flush succeeds: the system tells of such a failure once
        if threading.current_thread().name.startswith("last-flush"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with containers.open_reader(source) as reader, pytest.raises(OutputError, match="writing failed"):
        copy(reader, tmp_path / "y.safetensors")
    assert {item.name for item in tmp_path.iterdir()} == {source.name}
    assert filesystem.identity(tmp_path / "y.safetensors") is None


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 64, 65])
def test_bytes_are_compared_to_the_last_one(count):
    data = bytes(range(1, count + 1))
    assert inputs.same_bytes(memoryview(data), memoryview(bytes(data)))
    assert not inputs.same_bytes(memoryview(data), memoryview(data + b"x"))
    for position in range(count):
        other = bytearray(data)
        other[position] ^= 128
        assert not inputs.same_bytes(memoryview(data), memoryview(other))


def test_a_flush_that_failed_is_told_though_a_later_one_succeeds(tmp_path, monkeypatch):
    """The system forgets the error of an fsync once it has reported it: the file would be called whole."""
    monkeypatch.setattr(flushing, "EARLY", 10)
    errors = [OSError(5, "the disk is gone"), None]

    def fsync(descriptor):
        error = errors.pop(0)
        if error is not None:
            raise error

    monkeypatch.setattr(flushing.os, "fsync", fsync)
    with (tmp_path / "file").open("wb") as file:
        flushed = flushing.Flushing(file)
        flushed.wrote(10)
        while flushed._last is not None and not flushed._last.done():
            time.sleep(0.001)
        with pytest.raises(OSError, match="the disk is gone"):
            flushed.wrote(10)
        flushed.close()
