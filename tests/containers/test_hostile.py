"""Every hostile file is refused in one sentence that names the file; nothing else escapes."""

from __future__ import annotations

import contextlib
import os
import re

import numpy as np
import pytest

from lastcli import containers
from lastcli.errors import InputError, LastError
from tests import hostile
from tests.containers.samples import put

CASES = [
    pytest.param(case, id=f"{kind}-{case}")
    for kind in ("SAFETENSORS", "SHARDED", "EQUINOX", "MSGPACK", "ORBAX", "TORCH", "PICKLE", "PLACES")
    for case in getattr(hostile, kind)
]


def read_all(path):
    with containers.open_reader(path) as reader:
        for name in reader.tensors:
            reader.read(name)


@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_sentence(case, tmp_path):
    if case in hostile.TORCH:
        pytest.importorskip("torch")
    path = case.build(tmp_path)
    with pytest.raises(InputError) as refused:
        read_all(path)
    message = str(refused.value)
    assert re.search(case.says, message), message
    assert "\n" not in message
    assert len(message) < 700
    assert str(tmp_path) in message or str(path) in message.replace("\\x00", "\0")


@pytest.mark.parametrize("case", [case for case in CASES if "operations_without_end" in str(case)])
def test_operations_are_counted(case, tmp_path, monkeypatch):
    """As above, which takes as many operations as it says."""
    if case in hostile.TORCH:
        pytest.importorskip("torch")
    monkeypatch.setattr("lastcli.containers.pickle.limits.MAX_OPERATIONS", 10_000)
    with pytest.raises(InputError, match="more than 10,000 operations"):
        read_all(case.build(tmp_path))


def test_safetensors_cut_at_every_8_bytes(tmp_path):
    path = tmp_path / "whole.safetensors"
    put(path, {"a": np.arange(20.0), "b": np.ones((3, 4), np.float32)}, {"k": "v"})
    whole = path.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in range(0, len(whole), 8):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut"):
            read_all(cut)


def test_msgpack_cut_at_every_byte(tmp_path):
    path = tmp_path / "whole.msgpack"
    put(path, {"a/b": np.arange(3.0), "c": np.ones((), np.int32)}, extras={"step": 3, "s": "text"})
    whole = path.read_bytes()
    cut = tmp_path / "cut.msgpack"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_all(cut)


def test_every_flipped_header_byte_is_an_error_or_a_sound_file(tmp_path):
    path = tmp_path / "whole.safetensors"
    put(path, {"a": np.arange(3.0), "b": np.ones((3, 4), np.float32)}, {"k": "v"})
    whole = path.read_bytes()
    for position in range(8 + int.from_bytes(whole[:8], "little")):
        for bit in (1, 64):
            changed = bytearray(whole)
            changed[position] ^= bit
            path.write_bytes(changed)
            with contextlib.suppress(InputError):
                read_all(path)


def test_file_shortened_while_open(tmp_path):
    path = tmp_path / "x.safetensors"
    put(path, {"a": np.ones(1000, np.float32), "b": np.ones(1000, np.float32)})
    with containers.open_reader(path) as reader:
        os.truncate(path, 5000)
        reader.read("a")
        with pytest.raises(InputError, match=r"x\.safetensors ends inside tensor 'b'"):
            reader.read("b")


def test_names_are_escaped_in_messages(tmp_path):
    name = "../../etc\n\x1b[31m\u202e[bold]" + "x" * 70_000
    header = {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}
    path = tmp_path / "x.safetensors"
    path.write_bytes(hostile.safetensors_bytes(header, b"\0" * 4))
    with pytest.raises(InputError) as refused:
        containers.open_reader(path)
    message = str(refused.value)
    assert "\\n\\x1b[31m\\u202e" in message
    assert not re.search(r"[\x00-\x1f\x7f\u202e]", message)
    assert len(message) < 500


def test_ten_megabytes_of_metadata_are_read(tmp_path):
    path = tmp_path / "x.safetensors"
    put(path, {"a": np.ones(2)}, {"k": "v" * 10_000_000})
    with containers.open_reader(path) as reader:
        assert len(reader.metadata["k"]) == 10_000_000


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path):
    path = tmp_path / "x.safetensors"
    put(path, {"a": np.ones(2)})
    path.chmod(0)
    with pytest.raises(InputError, match="no permission"):
        containers.open_reader(path)


def test_foreign_formats_are_named(tmp_path):
    for start, says in (
        (b"\x89HDF\r\n", "HDF5"),
        (b"GGUF", "GGUF"),
        (b"a member's name".ljust(257, b"\0") + b"ustar", "tar archive; unpack it"),
        (b"version https://git-lfs.github.com/", "git lfs pull"),
    ):
        path = tmp_path / "x.bin"
        path.write_bytes(start + b"\0" * 100)
        with pytest.raises(LastError, match=says):
            containers.open_reader(path)


def test_suffix_does_not_matter(tmp_path):
    put(tmp_path / "x.safetensors", {"a": np.ones(2)})
    (tmp_path / "x.safetensors").rename(tmp_path / "x.msgpack")
    assert containers.open_reader(tmp_path / "x.msgpack").kind == "safetensors"
    put(tmp_path / "y.msgpack", {"a": np.ones(2)})
    (tmp_path / "y.msgpack").rename(tmp_path / "y")
    assert containers.open_reader(tmp_path / "y").kind == "msgpack"
