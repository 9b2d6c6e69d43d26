"""A folder is replaced only where nothing but one checkpoint of the container that is written is lost."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers.companions import companions_of
from lastcli.containers.inputs import read_small
from lastcli.errors import InputError, OutputError
from tests.containers.samples import contents, put, same_bits

OLD, NEW = {"a": np.zeros(3), "b": np.zeros(2)}, {"w": np.ones(4)}
ORBAX, SHARDS = {"kind": "orbax"}, {"shard_bytes": 10}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(out: Path, says: str, **options) -> None:
    """The output is refused by `check_output` and `write`, and nothing below its parent changes."""
    before = files(Path(os.path.realpath(out)).parent)
    with pytest.raises(OutputError, match=says):
        containers.check_output(out, force=True, **options)
    with pytest.raises(OutputError, match=says):
        put(out, NEW, force=True, **options)
    assert files(Path(os.path.realpath(out)).parent) == before


@pytest.mark.parametrize("options", [ORBAX, SHARDS], ids=["orbax", "shards"])
def test_a_folder_of_other_checkpoints(options, tmp_path):
    for name in ("a.safetensors", "best.safetensors"):
        put(tmp_path / "runs" / name, OLD) if (tmp_path / "runs").exists() else (tmp_path / "runs").mkdir()
        put(tmp_path / "runs" / name, OLD, force=True)
    refused(tmp_path / "runs", r"a\.safetensors|and the output one of", **options)


def test_a_folder_with_one_file_that_no_index_names(tmp_path):
    (tmp_path / "runs").mkdir()
    put(tmp_path / "runs" / "best.safetensors", OLD)
    refused(tmp_path / "runs", r"best\.safetensors", **SHARDS)


def test_a_shard_folder_with_one_more_checkpoint_in_it(tmp_path):
    put(tmp_path / "x", OLD, **SHARDS)
    put(tmp_path / "x" / "best.safetensors", NEW)
    refused(tmp_path / "x", r"best\.safetensors", **SHARDS)
    (tmp_path / "x" / "best.safetensors").unlink()
    put(tmp_path / "x", NEW, force=True, **SHARDS)
    same_bits(contents(tmp_path / "x"), NEW)


def test_a_shard_folder_with_two_indexes(tmp_path):
    put(tmp_path / "x", OLD, **SHARDS)
    index = tmp_path / "x" / "model.safetensors.index.json"
    index.with_name("other.safetensors.index.json").write_bytes(index.read_bytes())
    refused(tmp_path / "x", "no part of one", **SHARDS)


@pytest.mark.parametrize("name", ["notes.txt", "best.safetensors", "a/mine.npy", "d/mine.npy", "more/_METADATA"])
def test_an_orbax_folder_with_something_else_in_it(name, tmp_path):
    put(tmp_path / "x", OLD, **ORBAX)
    (tmp_path / "x" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "x" / name).write_text("{}")
    refused(tmp_path / "x", re.escape(name.removesuffix("/_METADATA")) + "|a folder of safetensors", **ORBAX)


def test_a_folder_of_steps(tmp_path):
    (tmp_path / "run").mkdir()
    put(tmp_path / "run" / "1", OLD, **ORBAX)
    put(tmp_path / "run" / "2", OLD, **ORBAX)
    refused(tmp_path / "run", "no part of one orbax checkpoint", **ORBAX)
    put(tmp_path / "run" / "2", NEW, force=True, **ORBAX)
    same_bits(contents(tmp_path / "run" / "2"), NEW)


def test_what_orbax_itself_wrote_is_replaced(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    for number, ocdbt in enumerate((True, False)):
        path = tmp_path / f"x{number}"
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)) as checkpointer:
            checkpointer.save(path, {"a": np.zeros((3, 4), np.float32), "s": {"b": np.ones(2)}})
        put(path, NEW, force=True, **ORBAX)
        same_bits(contents(path), NEW)


@pytest.mark.parametrize("options", [ORBAX, SHARDS], ids=["orbax", "shards"])
def test_another_kind_of_folder(options, tmp_path):
    put(tmp_path / "x", OLD, **(SHARDS if options is ORBAX else ORBAX))
    refused(tmp_path / "x", "and the output one of", **options)


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "/", "link", "../here"])
@pytest.mark.parametrize("options", [ORBAX, SHARDS, {"kind": "safetensors"}], ids=["orbax", "shards", "file"])
def test_the_working_folder_and_what_is_above_it(name, options, tmp_path, monkeypatch):
    here = tmp_path / "up" / "here"
    put(tmp_path / "up", OLD, **SHARDS)
    put(here, OLD, **SHARDS)
    (here / "link").symlink_to(tmp_path / "up")
    monkeypatch.chdir(here)
    before = files(tmp_path)
    with pytest.raises(OutputError, match="working folder"):
        containers.check_output(Path(name), force=True, **options)
    with pytest.raises(OutputError, match="working folder"):
        put(Path(name), NEW, force=True, **options)
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["", "."])
def test_the_command_with_an_unset_variable(name, last, tiny):
    before = files(tiny.parent)
    code, out, err = last("prune", tiny, "--ratio", "0.5", "--out", name, "--force", "-q")
    assert (code, out) == (5, "")
    assert "working folder itself" in err
    assert files(tiny.parent) == before


def test_the_input_in_the_folder_that_would_be_replaced(tmp_path):
    put(tmp_path / "x", OLD, **SHARDS)
    for name in ("model.safetensors.index.json", "model-00001-of-00002.safetensors"):
        with pytest.raises(OutputError, match="the input lies in this folder"):
            containers.check_output(tmp_path / "x", inputs=[tmp_path / "x" / name], force=True, **SHARDS)


def test_a_folder_of_nothing_is_taken(tmp_path):
    (tmp_path / "x").mkdir()
    put(tmp_path / "x", NEW, force=True, **ORBAX)
    same_bits(contents(tmp_path / "x"), NEW)
    assert json.loads((tmp_path / "x" / "_METADATA").read_text())["tree_metadata"]


def test_an_orbax_tree_that_does_not_name_its_arrays_is_not_replaced(tmp_path):
    put(tmp_path / "x", OLD, **ORBAX)
    tree = tmp_path / "x" / "_METADATA"
    document = json.loads(tree.read_text())
    for entry in document["tree_metadata"].values():
        entry["key_metadata"] = 3
    tree.write_text(json.dumps(document))
    refused(tmp_path / "x", "holds 'a', which is no part of one orbax", **ORBAX)


def test_several_indexes_and_one_of_nothing(tmp_path):
    index = tmp_path / "a.safetensors.index.json"
    index.write_text('{"weight_map": {}}')
    assert contents(tmp_path) == {}
    index.with_name("b.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(InputError, match="has 2 safetensors indexes; give the path of one of them"):
        containers.open_reader(tmp_path)


def test_files_beside_a_checkpoint_that_are_too_large_for_what_they_are(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("[]")
    assert companions_of(tmp_path) == {"config.json": b"{}", "tokenizer.json": b"[]"}
    os.truncate(tmp_path / "tokenizer.json", 2**28 + 1)
    with pytest.raises(InputError, match=r"tokenizer\.json has more than 256 MiB, which no such file has"):
        companions_of(tmp_path)
    with pytest.raises(InputError, match=r"config\.json is 2 bytes; at most 1 are read"):
        read_small(tmp_path / "config.json", 1)


def test_the_stranger_in_a_folder_without_an_index(tmp_path):
    from lastcli.containers.safetensors.sharded import stranger

    assert stranger(tmp_path) is None
    (tmp_path / "notes.txt").write_text("mine")
    assert stranger(tmp_path) == "notes.txt"
    (tmp_path / "other.safetensors").write_bytes(b"")
    assert stranger(tmp_path) == "other.safetensors"
