"""`prune --resume`: shards that an interrupted run finished are not written again, and never mixed with others."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lastcli import api, containers
from lastcli.containers import TensorSource
from lastcli.containers.safetensors import writer
from lastcli.errors import InputError, UsageError
from tests.conftest import write_s5
from tests.containers.samples import contents, put, same_bits

PRUNE = {"ratio": 0.5, "method": "last", "shard_bytes": 100, "resume": "shards.jsonl"}
# the same, in a process that kills itself before shard 4
KILLED = """
import os, signal, sys
from lastcli import api
from lastcli.containers.safetensors import writer
real, made = writer._write_file, []
def dying(path, *rest, **more):
    if len(made) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    made.append(path)
    real(path, *rest, **more)
writer._write_file = dying
api.prune(sys.argv[1], "out", ratio=0.5, method="last", shard_bytes=100, resume="shards.jsonl")
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small S5, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    return write_s5(tmp_path / "model.safetensors")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are written; the run ends before the shard of the number in `stop_at`."""
    made: list[str] = []
    real = writer._write_file

    def counted(path: Path, *rest, **more) -> None:
        if getattr(counted, "stop_at", None) == len(made):
            raise KeyboardInterrupt
        real(path, *rest, **more)
        made.append(path.name)

    monkeypatch.setattr(writer, "_write_file", counted)
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def interrupted(model: Path, written: list[str], shards: int) -> None:
    writer._write_file.stop_at = shards
    with pytest.raises(KeyboardInterrupt):
        api.prune(model, "out", **PRUNE)
    writer._write_file.stop_at = None
    written.clear()


def boxes() -> list[Path]:
    return sorted(Path().glob(".last-*"))


def test_a_killed_run_goes_on_behind_its_finished_shards(model, written, caplog) -> None:
    api.prune(model, "whole", **{**PRUNE, "resume": None})
    total = len(written)
    assert total > 5
    process = subprocess.run([sys.executable, "-c", KILLED, str(model)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert not Path("out").exists()
    put(Path("other.safetensors"), {"w": np.ones(2)})
    assert len(boxes()) == 1, "another run removed what --resume keeps"
    written.clear()
    api.prune(model, "out", **PRUNE)
    assert len(written) == total - 3
    assert "Going on from 3 finished shards in shards.jsonl" in caplog.text
    assert files(Path("out")) == files(Path("whole"))
    assert boxes() == []
    assert not Path("shards.jsonl").exists()


def test_an_exception_keeps_them_too_and_twice(model, written) -> None:
    api.prune(model, "whole", **{**PRUNE, "resume": None})
    total = len(written)
    written.clear()
    interrupted(model, written, 2)
    left = [file.name for box in boxes() for file in (box / "data").iterdir()]
    assert sorted(left) == [f"model-{number:05d}-of-{total:05d}.safetensors" for number in (1, 2)]
    interrupted(model, written, 2)
    api.prune(model, "out", **PRUNE)
    assert len(written) == total - 4
    assert files(Path("out")) == files(Path("whole"))


@pytest.mark.parametrize("change", [{"ratio": 0.25}, {"shard_bytes": 130}, {"method": "aire"}])
def test_shards_of_another_job_are_written_anew(model, written, change, caplog) -> None:
    interrupted(model, written, 2)
    api.prune(model, "out", **{**PRUNE, **change})
    assert "shards of another run" in caplog.text
    assert len(written) == len(list(Path("out").glob("*.safetensors")))
    put(Path("other.safetensors"), {"w": np.ones(2)})
    assert boxes() == []


def test_a_shard_that_is_not_as_it_was_written_is_written_anew(model, written) -> None:
    api.prune(model, "whole", **{**PRUNE, "resume": None})
    total = len(written)
    written.clear()
    interrupted(model, written, 3)
    shard = sorted((boxes()[0] / "data").iterdir())[1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    api.prune(model, "out", **PRUNE)
    assert len(written) == total - 2
    assert files(Path("out")) == files(Path("whole"))


def test_the_old_output_stays_whole_until_the_new_one_is(model, written) -> None:
    api.prune(model, "out", **{**PRUNE, "ratio": 0.25, "resume": None})
    old = files(Path("out"))
    written.clear()
    writer._write_file.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        api.prune(model, "out", force=True, **PRUNE)
    writer._write_file.stop_at = None
    assert files(Path("out")) == old
    api.prune(model, "out", force=True, **PRUNE)
    assert files(Path("out")) != old


def test_boxes_go_with_the_file_that_names_them(model, written) -> None:
    interrupted(model, written, 2)
    Path("shards.jsonl").unlink()
    api.prune(model, "out", **{**PRUNE, "resume": None})
    assert boxes() == []


def test_nothing_is_kept_of_a_run_that_finished_no_shard(model, written) -> None:
    interrupted(model, written, 0)
    assert boxes() == []


@pytest.mark.parametrize("text", ["weights", json.dumps({"schema": "last.rows/1"}) + "\n"])
def test_another_file_is_refused_and_stays(model, text) -> None:
    Path("shards.jsonl").write_text(text)
    with pytest.raises(InputError, match="no finished shards; name another file with --resume"):
        api.prune(model, "out", **PRUNE)
    assert Path("shards.jsonl").read_text() == text
    assert boxes() == []


def test_only_shards_are_kept_and_not_inside_the_output(model) -> None:
    with pytest.raises(UsageError, match="write shards with --shard-size"):
        api.prune(model, "small.safetensors", **{**PRUNE, "shard_bytes": None})
    with pytest.raises(UsageError, match="lies in the output"):
        api.prune(model, "out", **{**PRUNE, "resume": "out/shards.jsonl"})


def test_shards_of_an_interrupted_write_are_taken_over_as_far_as_they_are_sound(tmp_path: Path) -> None:
    """Four shards; the run ends in the last, the first is then replaced by the second, and a line is damaged."""
    arrays = {name: np.full(10, float(number)) for number, name in enumerate("abcd")}
    out, journal, seen = tmp_path / "out", tmp_path / "shards.jsonl", []
    options = {"metadata": {}, "shard_bytes": 80, "resume": journal, "progress": seen.append}

    def interrupted() -> np.ndarray:
        raise KeyboardInterrupt

    sources = [TensorSource.of(name, array) for name, array in arrays.items()]
    with pytest.raises(KeyboardInterrupt):
        containers.write(out, [*sources[:3], dataclasses.replace(sources[3], load=interrupted)], **options)
    (data,) = tmp_path.glob(".last-*/data")
    assert sorted(path.name[6:11] for path in data.iterdir()) == ["00001", "00002", "00003"]
    (data / "model-00001-of-00004.safetensors").write_bytes((data / "model-00002-of-00004.safetensors").read_bytes())
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"no JSON\n", b'{"other": 1}\n', *lines[2:]]))
    seen.clear()
    made: list[str] = []
    loaded = [dataclasses.replace(s, load=lambda s=s: made.append(s.info.name) or s.load()) for s in sources]
    containers.write(out, loaded, **options)
    assert made == ["a", "d"]
    assert seen == [80, 80, 80, 80]
    same_bits(contents(out), arrays)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
