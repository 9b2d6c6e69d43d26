"""File systems and kernels that lack something: what is done instead, and what is an error all the same."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from types import SimpleNamespace

import pytest

from lastcli.containers import boxes, filesystem
from lastcli.containers.exchange import exchange


def failing(number):
    def call(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK])
def test_without_hard_links_a_file_is_copied_with_its_mode_or_renamed(number, tmp_path, monkeypatch):
    source = tmp_path / "a"
    source.write_bytes(b"bytes")
    source.chmod(0o640)
    monkeypatch.setattr(os, "link", failing(number))
    filesystem.link_or_copy(source, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"bytes"
    assert (tmp_path / "b").stat().st_mode & 0o7777 == 0o640
    with pytest.raises(FileExistsError):
        filesystem.place_new(source, tmp_path / "b")
    filesystem.place_new(source, tmp_path / "c")
    assert not source.exists()
    assert (tmp_path / "c").read_bytes() == b"bytes"


@pytest.mark.parametrize("place", [filesystem.link_or_copy, filesystem.place_new])
def test_a_link_that_fails_for_another_reason_is_an_error(place, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"bytes")
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        place(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_flushed_is_as_durable_as_it_gets(tmp_path, monkeypatch):
    for number in (errno.EINVAL, errno.ENOTSUP):
        monkeypatch.setattr(os, "fsync", failing(number))
        filesystem.fsync(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        filesystem.fsync(tmp_path)


def test_what_cannot_be_looked_at_has_nothing_left_to_finish(tmp_path):
    boxes.finish_left(tmp_path / "missing" / "x")
    boxes.finish_left(tmp_path / "a\0b")
    assert filesystem.identity(tmp_path / "missing") is None


@pytest.mark.parametrize(("returns", "number", "expected"), [(0, 0, True), (-1, errno.ENOSYS, False)])
@pytest.mark.parametrize(("platform", "name"), [("linux", "renameat2"), ("darwin", "renamex_np")])
def test_names_are_exchanged_by_the_call_of_the_system(
    platform, name, returns, number, expected, tmp_path, monkeypatch
):
    made = []

    def call(*arguments):
        made.append(arguments)
        ctypes.set_errno(number)
        return returns

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda *a, **k: SimpleNamespace(**{name: call}))
    assert exchange(tmp_path / "a", tmp_path / "b") is expected
    (arguments,) = made
    assert arguments[-1] == 2
    assert [os.fsdecode(part) for part in arguments if isinstance(part, bytes)] == [
        str(tmp_path / "a"), str(tmp_path / "b")
    ]  # fmt: skip


def test_a_system_without_the_call_and_one_whose_call_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda *a, **k: SimpleNamespace())
    assert exchange(tmp_path / "a", tmp_path / "b") is False

    def call(*arguments):
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *a, **k: SimpleNamespace(renameat2=call))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        exchange(tmp_path / "a", tmp_path / "b")
