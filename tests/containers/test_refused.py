"""What `write` is given but no container can hold, and outputs that are not what was given: nothing is left behind."""

from __future__ import annotations

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers import TensorInfo, TensorSource, jobs, readback
from lastcli.containers.registry import container_named
from lastcli.containers.safetensors import writer
from lastcli.errors import OutputError, UsageError
from tests.containers.samples import contents, put, same_bits

ONE = TensorSource.of("w", np.ones(3))


def source(name="w", dtype="float64", nbytes=24):
    return TensorSource(TensorInfo(name, (3,), dtype, nbytes), lambda: np.ones(3))


@pytest.mark.parametrize(
    ("sources", "extras", "says"),
    [
        ([ONE, ONE], {}, "two tensors are named 'w'"),
        ([source(dtype="object")], {}, "dtype object, which no container here holds"),
        ([source(nbytes=3)], {}, "says 3 bytes, which its shape does not need"),
        ([ONE], {"w": 3}, "'w' is both a tensor and another leaf"),
        ([ONE], {"k": object()}, "'k' is a object, which last cannot store"),
    ],
)
def test_what_no_container_holds_is_named(sources, extras, says, tmp_path):
    with pytest.raises(OutputError, match=says):
        containers.write(tmp_path / "x.safetensors", sources, metadata={}, extras=extras)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"kind": "msgpack", "shard_bytes": 40}, {"shard_bytes": 0}])
def test_shards_are_written_only_where_there_are_shards(options, tmp_path):
    with pytest.raises(UsageError, match="Shards are written only as safetensors, of at least one byte each"):
        containers.write(tmp_path / "x", [ONE], metadata={}, **options)


@pytest.mark.parametrize("name", ["x.safetensors", "x.msgpack", "x"])
def test_an_output_that_reads_back_differently_never_takes_its_place(name, tmp_path, monkeypatch):
    containers.write(tmp_path / name, [ONE], metadata={})
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(jobs, "fingerprint", lambda array: "0" * 64)
    monkeypatch.setattr(jobs, "Running", type("Other", (jobs.Running,), {"text": lambda self: "0" * 64}))
    with pytest.raises(OutputError, match="tensor 'w' read back differs from what was written"):
        containers.write(tmp_path / name, [TensorSource.of("w", np.zeros(3))], metadata={}, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with containers.open_reader(tmp_path / name) as reader:
        np.testing.assert_array_equal(reader.load("w"), np.ones(3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((jobs.Job, "infos", lambda job: {}), "lists other tensors than were written"),
        ((readback, "_text", lambda extras, held: str(id(extras))), "the leaves that are no tensors read back differ"),
        ((jobs.Job, "digests_text", lambda job, names=None: jobs.digests_text({}, ["w"])), "the metadata read back"),
    ],
    ids=["tensors", "leaves", "digests"],
)
def test_whatever_reads_back_differently_is_named(change, says, tmp_path, monkeypatch):
    monkeypatch.setattr(*change)
    with pytest.raises(OutputError, match=says):
        put(tmp_path / "x.safetensors", {"w": np.ones(3)})
    assert list(tmp_path.iterdir()) == []


def in_pieces(*pieces):
    """A tensor of 24 bytes whose source has it in pieces."""
    return TensorSource(ONE.info, ONE.load, lambda: iter([memoryview(piece) for piece in pieces]))


def test_pieces_are_counted_and_written_as_they_come(tmp_path):
    seen = []
    sources = [in_pieces(np.ones(2).tobytes(), np.ones(1).tobytes())]
    containers.write(tmp_path / "x.safetensors", sources, metadata={}, progress=seen.append)
    assert seen == [16, 8]
    same_bits(contents(tmp_path / "x.safetensors"), {"w": np.ones(3)})
    with pytest.raises(OutputError, match=r"'w' was announced with 24 bytes but has 8; nothing was written"):
        containers.write(tmp_path / "y.safetensors", [in_pieces(bytes(8))], metadata={})
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_header_that_safetensors_cannot_have(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="keeps the name '__metadata__' for itself; rename the tensor"):
        put(tmp_path / "x.safetensors", {"__metadata__": np.ones(2)})
    with pytest.raises(RuntimeError, match="another length than before"):
        put(tmp_path / "x.safetensors", {"w": np.ones(2)}, {"k": "v"}, late=lambda: {"k": "v" * 9})
    monkeypatch.setattr(writer, "MAX_HEADER", 100)
    with pytest.raises(OutputError, match="header would exceed 100 bytes; write shards instead"):
        put(tmp_path / "x.safetensors", {"w" * 100: np.ones(2)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["[]", '{"last": 3}'])
def test_a_description_that_is_no_mapping_makes_no_sidecar(text, tmp_path):
    with pytest.raises(OutputError, match="description must be a JSON object, and its key 'last' too"):
        put(tmp_path / "x.msgpack", {"w": np.ones(2)}, {"last.description": text})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "says"),
    [(("a.b", "a/b"), "two tensors would both be the orbax parameter 'a.b'"), (("\ud800",), "not valid Unicode text")],
)
def test_names_that_orbax_cannot_keep_apart_or_write(names, says, tmp_path):
    with pytest.raises(OutputError, match=says):
        put(tmp_path / "x", {name: np.ones(2) for name in names})
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_replaced_by_a_folder_and_an_input_that_cannot_be_is_none(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(OutputError, match="x is a file and the output is a folder; choose another name"):
        containers.check_output(tmp_path / "x", kind="orbax", force=True)
    containers.check_output(tmp_path / "x", inputs=[tmp_path / "a\0b"], kind="safetensors", force=True)
    assert (tmp_path / "x").read_text() == "mine"


def test_a_container_is_named_as_it_is_called_and_has_a_place_for_a_configuration_or_none(tmp_path):
    with pytest.raises(UsageError, match=r"There is no container 'zip'; use safetensors, .* or "):
        container_named("zip")
    assert containers.config_place(tmp_path / "x.msgpack") is None
    assert containers.config_place(tmp_path / "model.safetensors") == tmp_path / "config.json"
