"""What a killed run left is found by the next, finished or removed, and said."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers import boxes, filesystem, finished
from lastcli.containers.signals import undisturbed
from lastcli.errors import InputError
from tests.containers.samples import contents, put, same_bits
from tests.fuzz.calls import Calls, counted
from tests.fuzz.killing import killed
from tests.fuzz.outputs import OUTPUTS, state

OLD, NEW = {"w": np.zeros(3)}, {"w": np.ones(4)}


def half_done(kind: str, folder: Path, step: str) -> Path:
    """An old output over which a run was killed just before its last call of that name."""
    output, trial = OUTPUTS[kind], folder / "trial"
    trial.mkdir()
    calls = Calls(below=trial)
    output.write(trial, "old", force=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lastcli.containers.atomic.exchange", lambda first, second: False)
        with counted(calls):
            output.write(trial, "new", force=True)
    number = len(calls.made) - 1 - calls.made[::-1].index(step)
    output.write(folder, "old", force=False)
    process, _ = killed(kind, number, folder, old=True, exchanged=False)
    assert process.exitcode == -signal.SIGKILL
    return folder / output.name


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.glob(".last-*")]


def dead_box(folder: Path, journal: dict | None = None, host: str | None = None) -> Path:
    """A box as a process that is no more left it."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    box = folder / f".last-{host or boxes._host()}-{process.pid}-1-{'0' * 12}.new"
    box.mkdir()
    (box / "data").write_bytes(b"half")
    if journal is not None:
        (box / "journal").write_text(json.dumps(journal))
    return box


@pytest.mark.parametrize(("kind", "step"), [("msgpack", "replace"), ("torch", "replace"), ("shards", "rename")])
def test_inspect_finishes_what_was_half_put_in_place(kind, step, last, tmp_path):
    if kind == "torch":
        pytest.importorskip("torch")
    path = half_done(kind, tmp_path, step)
    assert left(tmp_path)
    assert path.exists() == (kind != "shards")
    _, _, err = last("inspect", path)
    assert f"had written '{path.name}' but not put it in place; it is in place now." in err
    assert left(tmp_path) == []
    assert state(path) == "new"


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "model-00001-of-00001.safetensors"])
def test_a_file_inside_a_folder_finishes_the_folder(name, last, tmp_path):
    path = half_done("shards", tmp_path, "rename")
    assert not path.exists()
    _, _, err = last("inspect", path / name)
    assert f"had written '{path.name}' but not put it in place; it is in place now." in err
    assert left(tmp_path) == []
    assert state(path) == "new"


def test_a_link_of_another_name_finishes_it_too(last, tmp_path):
    path = half_done("msgpack", tmp_path, "replace")
    (tmp_path / "link.msgpack").symlink_to(path)
    last("inspect", tmp_path / "link.msgpack")
    assert left(tmp_path) == []
    assert state(path) == "new"


def test_quiet_finishes_without_a_word(last, tmp_path):
    path = half_done("shards", tmp_path, "rename")
    assert "killed" not in last("inspect", path, "-q")[2]
    assert state(path) == "new"


def test_a_box_without_a_journal_is_removed_by_the_next_run_and_said(tmp_path, caplog):
    box = dead_box(tmp_path)
    put(tmp_path / "x.safetensors", OLD)
    assert left(tmp_path) == []
    assert f"left {box.name} here (4 bytes); it was removed." in caplog.text


def test_reading_another_file_removes_nothing(tmp_path):
    put(tmp_path / "x.safetensors", OLD)
    box = dead_box(tmp_path)
    contents(tmp_path / "x.safetensors")
    assert box.exists()


def test_the_box_of_a_living_process_is_left_alone(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        name = f".last-{boxes._host()}-{process.pid}-{boxes._started(process.pid)}-{'0' * 12}.new"
        (tmp_path / name).mkdir()
        put(tmp_path / "x.safetensors", OLD)
        assert left(tmp_path) == [name]
    finally:
        process.communicate()
    put(tmp_path / "x.safetensors", OLD, force=True)
    assert left(tmp_path) == []


def test_a_number_that_another_living_process_has_is_not_the_owner(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        (tmp_path / f".last-{boxes._host()}-{process.pid}-1-{'0' * 12}.new").mkdir()
        put(tmp_path / "x.safetensors", OLD)
        assert left(tmp_path) == [] or not Path("/proc/self/stat").exists()
    finally:
        process.communicate()


def test_a_number_used_again_is_another_process(tmp_path):
    (tmp_path / f".last-{boxes._host()}-{os.getpid()}-1-{'0' * 12}.new").mkdir()
    put(tmp_path / "x.safetensors", OLD)
    assert left(tmp_path) == [] or not Path("/proc/self/stat").exists()


def test_the_box_of_another_machine_is_left_alone_for_a_day(tmp_path):
    box = dead_box(tmp_path, host="0" * 8)
    put(tmp_path / "x.safetensors", OLD)
    assert box.exists()
    before = time.time() - 100_000
    os.utime(box, (before, before))
    put(tmp_path / "x.safetensors", OLD, force=True)
    assert not box.exists()


@pytest.mark.parametrize("target", ["../victim", "/etc/victim", "..", "", "a/b", 3, None])
def test_a_journal_that_leads_elsewhere_is_none(target, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "victim").write_text("mine")
    dead_box(folder, {"target": target, "replaces": None, "sidecar": None})
    put(folder / "x.safetensors", OLD)
    assert left(folder) == []
    assert (tmp_path / "victim").read_text() == "mine"


def test_what_was_put_there_meanwhile_keeps_its_place(tmp_path):
    put(tmp_path / "x.safetensors", NEW)
    dead_box(tmp_path, {"target": "x.safetensors", "replaces": [1, 2, 3, 4], "sidecar": None})
    same_bits(contents(tmp_path / "x.safetensors"), NEW)
    assert left(tmp_path) == []


@pytest.mark.parametrize("old", [None, '{"family": "old"}'])
def test_a_new_sidecar_beside_somebody_elses_output_is_taken_back(old, tmp_path):
    """The run was killed after it had put its sidecar in place, and another output came before its own."""
    put(tmp_path / "x.msgpack", NEW)
    (tmp_path / "x.json").write_text('{"family": "of the killed run"}')
    box = dead_box(tmp_path, {"target": "x.msgpack", "replaces": [1, 2, 3, 4], "sidecar": "x.json"})
    if old is not None:
        (box / "sidecar.old").write_text(old)
    boxes.finish_left(tmp_path / "x.msgpack")
    assert left(tmp_path) == []
    assert ((tmp_path / "x.json").read_text() if old is not None else (tmp_path / "x.json").exists()) == (old or False)


def test_a_sidecar_is_all_that_was_left_to_do(tmp_path, caplog):
    put(tmp_path / "x.msgpack", NEW)
    box = dead_box(tmp_path, {"target": "x.msgpack", "replaces": None, "sidecar": "x.json"})
    (box / "data").unlink()
    (box / "sidecar").write_text('{"family": "s5"}')
    boxes.finish_left(tmp_path / "x.msgpack")
    assert (tmp_path / "x.json").read_text() == '{"family": "s5"}'
    assert "it is in place now" in caplog.text
    assert left(tmp_path) == []


def test_the_box_of_another_users_process_is_left_alone(tmp_path, monkeypatch):
    box = dead_box(tmp_path)

    def forbidden(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    boxes.finish_left(tmp_path / "x.safetensors")
    assert box.exists()


def test_a_box_that_another_run_is_settling_is_left_to_it(tmp_path):
    box = dead_box(tmp_path)
    lock = os.open(box, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        boxes.finish_left(tmp_path / "x.safetensors")
        assert box.exists()
    finally:
        os.close(lock)
    boxes.finish_left(tmp_path / "x.safetensors")
    assert not box.exists()


def test_where_there_are_no_locks_a_dead_process_decides_alone(tmp_path, monkeypatch):
    box = dead_box(tmp_path)

    def none(descriptor, operation):
        raise OSError

    monkeypatch.setattr(fcntl, "flock", none)
    boxes.finish_left(tmp_path / "x.safetensors")
    assert not box.exists()


def test_a_file_whose_name_only_looks_like_one_is_nobodys_box(tmp_path):
    (tmp_path / ".last-notes.new").write_text("mine")
    put(tmp_path / "x.safetensors", OLD)
    assert left(tmp_path) == [".last-notes.new"]


def test_a_missing_name_is_missing(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="no such file"):
        containers.open_reader(tmp_path / "x.safetensors")
    assert caplog.text == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_old_folder_is_removed_waits(number, tmp_path):
    put(tmp_path / "x", OLD)
    code = (
        "import os, shutil, numpy as np; from pathlib import Path\n"
        "from lastcli import containers as c; from lastcli.containers import boxes\n"
        "plain = shutil.rmtree\n"
        "def slow(*a, **k):\n"
        f"    os.kill(os.getpid(), {int(number)}); plain(*a, **k); print('removed', flush=True)\n"
        "boxes.shutil.rmtree = slow\n"
        f"c.write(Path({str(tmp_path / 'x')!r}), [c.TensorSource.of('w', np.ones(4))], metadata={{}}, force=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert re.search("KeyboardInterrupt", done.stderr)
    assert "removed" in done.stdout
    assert left(tmp_path) == []
    same_bits(contents(tmp_path / "x"), NEW)


def test_reading_finishes_no_other_output(tmp_path):
    box = dead_box(tmp_path, {"target": "y.safetensors", "replaces": None, "sidecar": None})
    boxes.finish_left(tmp_path / "x.safetensors", only=True)
    assert box.exists()
    boxes.finish_left(tmp_path / "y.safetensors", only=True)
    assert (tmp_path / "y.safetensors").read_bytes() == b"half"
    assert left(tmp_path) == []


def test_a_folder_is_put_in_the_place_of_the_one_that_it_replaces(tmp_path):
    put(tmp_path / "x", OLD)
    put(tmp_path / "new", NEW)
    box = dead_box(tmp_path, {"target": "x", "replaces": filesystem.identity(tmp_path / "x"), "sidecar": None})
    (box / "data").unlink()
    (tmp_path / "new").rename(box / "data")
    boxes.finish_left(tmp_path / "x")
    same_bits(contents(tmp_path / "x"), NEW)
    assert left(tmp_path) == []


def test_a_box_of_finished_shards_that_another_run_has_is_left_to_it(tmp_path):
    box = dead_box(tmp_path)
    lock = os.open(box, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with boxes.left_box(box) as free:
            assert not free
        assert box.exists()
    finally:
        os.close(lock)
    with boxes.left_box(box) as free:
        assert free
    assert not box.exists()


def test_signals_are_left_as_they_are_in_a_thread_that_never_gets_one():
    before, seen = signal.getsignal(signal.SIGINT), []

    def body():
        with undisturbed():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before]
    with undisturbed():
        assert signal.getsignal(signal.SIGINT) is not before


def test_the_box_of_a_living_run_is_locked_against_other_processes(tmp_path):
    """Where names say nothing (another host, a process number used again), the lock alone says that it is in use."""
    box = boxes.Box(tmp_path)
    other = os.open(box.path, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(other)
        box.discard()
    assert not box.path.exists()


@pytest.mark.parametrize("cut", [0, 1, 5, 13, 24])
def test_a_first_line_that_was_cut_off_is_known_again(cut):
    whole = json.dumps({"schema": finished.SCHEMA, "job": "x"}).encode()
    assert finished._ours(whole[:cut])
    assert not finished._ours(b"{" + b"x" * 20)
    assert not finished._ours(b"x" + whole[:cut])
