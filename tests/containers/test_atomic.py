"""Whatever happens while writing, the old output is whole and nothing temporary is left."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers import TensorInfo, TensorSource, atomic, jobs
from lastcli.errors import InputError, OutputError
from tests.containers.samples import contents, copy, put, same_bits

NAMES = ["x.safetensors", "x.msgpack", "x", "x.pt"]
OLD, NEW = {"w": np.zeros(3)}, {"w": np.ones(4)}


@pytest.fixture(params=NAMES)
def name(request):
    if request.param == "x.pt":
        pytest.importorskip("torch")
    return request.param


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files_of(name: str) -> list[str]:
    """The names of an output and, where its container has one, of its sidecar."""
    container = containers.CONTAINERS[containers.kind_for(Path(name))]
    return sorted([name] if container.keeps_metadata else [name, str(Path(name).with_suffix(".json"))])


def failing(error: BaseException) -> list[TensorSource]:
    """Two tensors, the second of which cannot be loaded."""

    def fail() -> np.ndarray:
        raise error

    return [TensorSource.of("a", np.ones(10_000)), TensorSource(TensorInfo("b", (2,), "float64", 16), fail)]


def test_an_existing_output_needs_force(name, tmp_path):
    put(tmp_path / name, OLD)
    with pytest.raises(OutputError, match="--force"):
        put(tmp_path / name, NEW)
    same_bits(contents(tmp_path / name), OLD)
    put(tmp_path / name, NEW, force=True)
    same_bits(contents(tmp_path / name), NEW)
    assert listing(tmp_path) == files_of(name)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(143), InputError("no"), MemoryError(), OSError(errno.EIO, "x")]
)
@pytest.mark.parametrize("force", [True, False])
def test_nothing_is_left_when_a_source_fails(name, error, force, tmp_path):
    if force:
        put(tmp_path / name, OLD)
    with pytest.raises((type(error), OutputError)):
        containers.write(tmp_path / name, failing(error), metadata={}, force=force)
    assert listing(tmp_path) == (files_of(name) if force else [])
    if force:
        same_bits(contents(tmp_path / name), OLD)


def test_an_interrupt_before_the_last_step_leaves_the_old_pair(tmp_path, monkeypatch):
    old, new = ({"last.description": json.dumps({"family": family})} for family in ("old", "new"))
    put(tmp_path / "x.msgpack", OLD, old)

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.Stage, "_place", interrupt)
    with pytest.raises(KeyboardInterrupt):
        put(tmp_path / "x.msgpack", NEW, new, force=True)
    assert json.loads((tmp_path / "x.json").read_text())["family"] == "old"
    same_bits(contents(tmp_path / "x.msgpack"), OLD)
    with pytest.raises(KeyboardInterrupt):
        put(tmp_path / "y.msgpack", NEW, new)
    assert listing(tmp_path) == ["x.json", "x.msgpack"]


def test_what_is_not_read_back_alike_is_not_put_in_place(name, tmp_path, monkeypatch):
    load, pieces = jobs.Job.load, jobs.Job.pieces

    def corrupted(self, source):
        array = np.array(load(self, source))
        array.reshape(-1)[0] += 1
        return array

    def in_corrupted_pieces(self, source, hasher):
        for piece in pieces(self, source, hasher):
            data = bytearray(piece)
            data[0] ^= 1
            yield memoryview(data)

    put(tmp_path / name, OLD)
    monkeypatch.setattr(jobs.Job, "load", corrupted)
    monkeypatch.setattr(jobs.Job, "pieces", in_corrupted_pieces)
    with pytest.raises(OutputError, match=r"'w' read back differs|'w' is not as it was written"):
        put(tmp_path / name, NEW, force=True)
    monkeypatch.undo()
    same_bits(contents(tmp_path / name), OLD)
    assert listing(tmp_path) == files_of(name)


def test_a_tensor_other_than_announced_is_refused(name, tmp_path):
    source = TensorSource(TensorInfo("w", (3,), "float32", 12), lambda: np.ones(4, np.float32))
    with pytest.raises(OutputError, match="announced"):
        containers.write(tmp_path / name, [source], metadata={})
    assert listing(tmp_path) == []


def test_disk_full(name, tmp_path):
    put(tmp_path / name, OLD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"ulimit|could not write"):
            put(tmp_path / name, {"w": np.ones(1_000_000)}, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    same_bits(contents(tmp_path / name), OLD)
    assert listing(tmp_path) == files_of(name)


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o640])
@pytest.mark.parametrize("exchanged", [True, False])
def test_what_is_replaced_keeps_its_mode(name, mode, exchanged, tmp_path, monkeypatch):
    if not exchanged:
        monkeypatch.setattr(atomic, "exchange", lambda first, second: False)
    put(tmp_path / name, OLD)
    folder_mode = mode | (mode & 0o444) >> 2
    for path in tmp_path.rglob("*"):
        path.chmod(folder_mode if path.is_dir() else mode)
    before = os.umask(0o022)
    try:
        put(tmp_path / name, NEW | {"more": np.ones(3)}, force=True)
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (folder_mode if path.is_dir() else mode), path


def test_nobody_else_can_look_into_an_output_that_is_being_made(name, tmp_path):
    put(tmp_path / name, OLD)
    modes = []

    def look() -> np.ndarray:
        modes.extend(path.stat().st_mode & 0o777 for path in tmp_path.glob(".last-*"))
        return np.ones(2)

    source = TensorSource(TensorInfo("w", (2,), "float64", 16), look)
    containers.write(tmp_path / name, [source], metadata={}, force=True)
    assert modes == [0o700]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_of_the_umask(name, umask, tmp_path):
    before = os.umask(umask)
    try:
        put(tmp_path / name, OLD, {"last.description": '{"a": 1}'})
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask


def test_a_link_is_written_through(name, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "real" / name)
    put(tmp_path / name, OLD)
    assert (tmp_path / name).is_symlink()
    put(tmp_path / name, NEW, force=True)
    assert (tmp_path / name).is_symlink()
    same_bits(contents(tmp_path / "real" / name), NEW)
    assert listing(tmp_path / "real") == [name]


@pytest.mark.parametrize("target", ["loop", "missing/x.safetensors", "folder", "pipe", "file/x", "x" * 300, "a\0b"])
def test_impossible_places(target, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    before = listing(tmp_path)
    with pytest.raises(OutputError):
        put(tmp_path / target, OLD, kind="safetensors", force=True)
    assert listing(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission(name, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission"):
        put(tmp_path / "closed" / name, OLD)


def test_an_unknown_suffix(tmp_path):
    with pytest.raises(OutputError, match=r"\.safetensors, \.msgpack"):
        put(tmp_path / "x.onnx", OLD)


def test_the_input_is_never_the_output(name, tmp_path):
    put(tmp_path / name, OLD)
    (tmp_path / f"link{name}").symlink_to(tmp_path / name)
    for out in (name, f"link{name}"):
        with containers.open_reader(tmp_path / name) as reader, pytest.raises(OutputError, match="this is the input"):
            copy(reader, tmp_path / out, template=reader, force=True)


def test_a_folder_that_is_no_checkpoint_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    for options in ({}, {"shard_bytes": 10}):
        with pytest.raises(OutputError, match="no checkpoint"):
            put(tmp_path / "home", OLD, force=True, **options)
    put(tmp_path / "shards", OLD, shard_bytes=10)
    (tmp_path / "shards" / "tokenizer.json").write_text("{}")
    with pytest.raises(OutputError, match=r"tokenizer\.json"):
        put(tmp_path / "shards", NEW, force=True, shard_bytes=10)
    same_bits(contents(tmp_path / "shards"), OLD)


def test_a_foreign_sidecar_needs_force(tmp_path):
    (tmp_path / "x.json").write_text('{"mine": 1}')
    metadata = {"last.description": '{"family": "s5"}'}
    with pytest.raises(OutputError, match=r"x\.json says something else"):
        put(tmp_path / "x.msgpack", OLD, metadata)
    assert listing(tmp_path) == ["x.json"]
    assert (tmp_path / "x.json").read_text() == '{"mine": 1}'
    put(tmp_path / "x.msgpack", OLD, metadata, force=True)
    assert json.loads((tmp_path / "x.json").read_text())["family"] == "s5"
    (tmp_path / "x.msgpack").unlink()
    put(tmp_path / "x.msgpack", OLD, metadata)


def test_the_faster_of_two_runs_wins(name, tmp_path):
    path = tmp_path / name

    def meanwhile() -> np.ndarray:
        put(path, OLD)
        return np.ones(2)

    source = TensorSource(TensorInfo("w", (2,), "float64", 16), meanwhile)
    with pytest.raises(OutputError, match="meanwhile"):
        containers.write(path, [source], metadata={})
    same_bits(contents(path), OLD)
    assert listing(tmp_path) == files_of(name)


@pytest.fixture
def flushed(monkeypatch, tmp_path):
    """Inodes in the order in which they were flushed to the disk, with whether the output stood then."""
    seen: list[tuple[int, bool]] = []
    plain = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append((os.fstat(descriptor).st_ino, any(os.path.lexists(tmp_path / name) for name in NAMES)))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_files_are_flushed_before_they_are_in_place_and_their_folder_after(name, flushed, tmp_path):
    put(tmp_path / name, NEW, {"last.description": '{"a": 1}'})
    before = {inode for inode, stands in flushed if not stands}
    written = [tmp_path / name, *(tmp_path / name).rglob("*"), *tmp_path.glob("*.json")]
    assert len(written) > 3 or name != "x"
    assert {path.stat().st_ino for path in written} <= before
    assert (tmp_path.stat().st_ino, True) in flushed


def test_a_plain_file_is_flushed_and_put_in_place_like_a_checkpoint(flushed, tmp_path):
    path = tmp_path / "x.safetensors"
    containers.write_file(path, b"one")
    assert [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)] == flushed
    with pytest.raises(OutputError, match="--force"):
        containers.write_file(path, b"two")
    assert path.read_bytes() == b"one"
    containers.write_file(path, b"two", force=True)
    assert path.read_bytes() == b"two"
    assert listing(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "no")])
def test_an_old_folder_is_moved_back_when_the_new_one_cannot_take_its_place(error, tmp_path, monkeypatch):
    put(tmp_path / "x", OLD)
    plain = Path.rename
    monkeypatch.setattr(atomic, "exchange", lambda first, second: False)

    def rename(path: Path, target: Path) -> Path:
        if path.name == "data":
            assert not (tmp_path / "x").exists()
            raise error
        return plain(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises((KeyboardInterrupt, OutputError)):
        put(tmp_path / "x", NEW, force=True)
    monkeypatch.undo()
    same_bits(contents(tmp_path / "x"), OLD)
    assert listing(tmp_path) == ["x"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(number, tmp_path):
    put(tmp_path / "x.safetensors", OLD)
    code = (
        "import time, numpy as np; from pathlib import Path; from lastcli import containers as c\n"
        "def slow():\n"
        f"    Path({str(tmp_path / 'started')!r}).touch(); time.sleep(60)\n"
        "s = [c.TensorSource.of('a', np.ones(9)), c.TensorSource(c.TensorInfo('b', (2,), 'float64', 16), slow)]\n"
        f"c.write(Path({str(tmp_path / 'x.safetensors')!r}), s, metadata={{}}, force=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) in (130, -signal.SIGINT)
    assert listing(tmp_path) == ["started", "x.safetensors"]
    same_bits(contents(tmp_path / "x.safetensors"), OLD)


def test_progress_and_receipt(name, tmp_path):
    seen: list[int] = []
    receipt = put(tmp_path / name, {"a": np.ones(4), "b": np.ones(2, np.int8)}, progress=seen.append)
    assert sorted(seen) == [2, 32]
    assert receipt.path == tmp_path / name
    files = (
        [tmp_path / name] if (tmp_path / name).is_file() else [f for f in (tmp_path / name).rglob("*") if f.is_file()]
    )
    assert receipt.bytes == sum(file.stat().st_size for file in files)


def test_kind_for():
    kinds = {
        name: containers.kind_for(Path(name))
        for name in ("a.safetensors", "a.MSGPACK", "a", "run.33", "a.ckpt", "a.pth")
    }
    assert list(kinds.values()) == ["safetensors", "msgpack", "orbax", "orbax", "torch", "torch"]
