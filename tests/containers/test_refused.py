"""What `write` is given but no container can hold, and outputs that are not what was given: nothing is left behind."""

from __future__ import annotations

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers import TensorInfo, TensorSource, jobs
from lastcli.errors import OutputError, UsageError

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
    with pytest.raises(OutputError, match="tensor 'w' read back differs from what was written"):
        containers.write(tmp_path / name, [TensorSource.of("w", np.zeros(3))], metadata={}, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with containers.open_reader(tmp_path / name) as reader:
        np.testing.assert_array_equal(reader.load("w"), np.ones(3))
