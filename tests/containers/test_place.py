"""A place that cannot or must not be written is refused before any work, by every command that writes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lastcli import containers
from lastcli.errors import OutputError
from lastcli.model.checkpoint import Checkpoint
from tests.containers.samples import put


@pytest.fixture
def idle(tiny, monkeypatch):
    """No layer of a checkpoint is read and nothing is written: whoever begins to work fails."""

    def work(*arguments, **options):
        raise RuntimeError("the work has begun")

    monkeypatch.setattr(containers, "write", work)
    monkeypatch.setattr(Checkpoint, "systems", property(work))


@pytest.mark.parametrize("link", [False, True], ids=["name", "hard_link"])
@pytest.mark.parametrize("command", [("prune", "--ratio", "0.5", "--out"), ("convert",)], ids=["prune", "convert"])
def test_the_input(command, link, idle, last, tiny):
    target = tiny
    if link:
        target = tiny.with_name("hard.safetensors")
        target.hardlink_to(tiny)
    code, out, err = last(command[0], tiny, *command[1:], target, "--force", "-q")
    assert (code, out) == (5, "")
    assert ("this is the input under another name" if link else "this is the input;") in err


@pytest.mark.parametrize("command", [("prune", "--ratio", "0.5", "--out"), ("convert",)], ids=["prune", "convert"])
@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("old.safetensors", "give --force to replace it"),
        ("x.onnx", "no container is known for '.onnx'"),
        ("no/such/x.msgpack", "does not exist"),
    ],
)
def test_another_place(command, target, says, idle, last, tiny):
    tiny.with_name("old.safetensors").write_bytes(b"old")
    code, out, err = last(command[0], tiny, *command[1:], target, "-q")
    assert (code, out) == (5, "")
    assert says in err
    assert tiny.with_name("old.safetensors").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [("old.svg", 5, "give --force"), ("no/such.svg", 5, "does not exist"), ("x.bmp", 2, ".png, .svg, .pdf")],
)
def test_a_plot(target, code, says, idle, last, tiny, data):
    tiny.with_name("old.svg").write_bytes(b"old")
    ended, out, err = last("sweep", tiny, "--data", data, "--plot", target, "-q")
    assert (ended, out) == (code, "")
    assert says in err
    assert tiny.with_name("old.svg").read_bytes() == b"old"


def test_a_plot_is_written_where_the_place_is_free_or_given_up(last, tiny, data):
    before = {path.name for path in tiny.parent.iterdir()}
    for force in ((), ("--force",)):
        arguments = ("sweep", tiny, "--data", data, "--ratios", "0.5", "--plot", "x.svg", "--json", "-q", *force)
        code, out, err = last(*arguments)
        assert code == 0, err
        assert json.loads(out)["rows"]
        assert tiny.with_name("x.svg").read_bytes().startswith(b"<?xml")
    assert {path.name for path in tiny.parent.iterdir()} == before | {"x.svg"}


def test_a_dry_run_needs_no_free_place(last, tiny):
    target = tiny.with_name("old.safetensors")
    target.write_bytes(b"old")
    assert last("prune", tiny, "--ratio", "0.5", "--out", target, "--dry-run", "-q")[0] == 0
    assert target.read_bytes() == b"old"


def test_a_foreign_sidecar_is_found_before_a_tensor_is_read(tmp_path):
    (tmp_path / "x.json").write_text('{"mine": 1}')
    info = containers.TensorInfo("w", (2,), "float64", 16)
    read = []
    source = containers.TensorSource(info, lambda: read.append(1) or np.ones(2))
    with pytest.raises(OutputError, match=r"x\.json says something else"):
        containers.write(tmp_path / "x.msgpack", [source], metadata={"last.description": "{}", "k": "v"})
    assert read == []


def test_stored_bytes_of_files_folders_and_links(tmp_path):
    put(tmp_path / "x", {"a": np.ones(100)})
    files = [path for path in (tmp_path / "x").rglob("*") if path.is_file()]
    assert containers.stored_bytes(tmp_path / "x") == sum(len(path.read_bytes()) for path in files) > 800
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "w").symlink_to(files[0])
    assert containers.stored_bytes(tmp_path / "snapshot") == len(files[0].read_bytes())
