"""The sha256 of a file and of a folder are those that anybody computes."""

from __future__ import annotations

import hashlib

import pytest

from lastcli.containers import inputs
from lastcli.containers.hashing import FileHash
from lastcli.errors import InputError


@pytest.mark.parametrize("size", [0, 1, 1000, 5000])
def test_of_a_file(tmp_path, monkeypatch, size):
    monkeypatch.setattr(inputs, "PIECE", 1000)
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(i % 251 for i in range(size)))
    assert FileHash(path).result() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_of_a_folder(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/z", "a", "c"):
        (tmp_path / name).write_text(f"of {name}")
    wanted = hashlib.sha256(b"".join(f"{name}\0of {name}".encode() for name in ("a", "b/z", "c")))
    assert FileHash(tmp_path).result() == wanted.hexdigest()
    (tmp_path / "c").write_text("of C")
    assert FileHash(tmp_path).result() != wanted.hexdigest()


def test_of_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="gone could not be read to its end \\(No such file"):
        FileHash(tmp_path / "gone").result()
