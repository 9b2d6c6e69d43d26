"""Attacks on a folder of safetensors shards and its index."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lastcli import containers
from lastcli.containers import TensorSource
from tests.hostile.case import Case

__all__ = ["SHARDED"]


def _index(name: str, says: str, change: Callable[[dict, Path], None]) -> Case:
    """A sound folder of two shards (a, b | c), then changed."""

    def build(folder: Path) -> Path:
        path = folder / "sharded"
        sources = [TensorSource.of(key, np.arange(4, dtype=np.float32)) for key in "abc"]
        containers.write(path, sources, metadata={}, shard_bytes=32)
        file = path / "model.safetensors.index.json"
        index = json.loads(file.read_text())
        change(index, path)
        file.write_text(json.dumps(index))
        return path

    return Case(name, build, says)


def _map(key: str, value: object) -> Callable[[dict, Path], None]:
    def change(index: dict, path: Path) -> None:
        index["weight_map"][key] = value

    return change


def _link_out(index: dict, path: Path) -> None:
    inside = path / index["weight_map"]["c"]
    inside.rename(path.parent / "outside.safetensors")
    inside.symlink_to(path.parent / "outside.safetensors")


def _drop_shard(index: dict, path: Path) -> None:
    (path / index["weight_map"]["c"]).unlink()


def _drop_entry(index: dict, path: Path) -> None:
    del index["weight_map"]["b"]


def _more(index: dict, path: Path) -> None:
    index["weight_map"]["zz"] = index["weight_map"]["a"]


def _false_size(index: dict, path: Path) -> None:
    index["metadata"]["total_size"] += 1


def _no_map(index: dict, path: Path) -> None:
    del index["weight_map"]


def _twice(index: dict, path: Path) -> None:
    first, second = index["weight_map"]["a"], index["weight_map"]["c"]
    index["weight_map"]["a"] = second
    (path / second).write_bytes((path / first).read_bytes())


def _many_entries(index: dict, path: Path) -> None:
    index["weight_map"] |= {f"t{number}": index["weight_map"]["a"] for number in range(100_000)}


SHARDED: list[Case] = [
    _index("shard_in_parent", "not a plain file name", _map("a", "../x.safetensors")),
    _index("shard_absolute", "not a plain file name", _map("a", "/etc/passwd")),
    _index("shard_on_a_drive", "not a plain file name", _map("a", "C:\\x.safetensors")),
    _index("shard_empty_name", "not a plain file name", _map("a", "")),
    _index("shard_with_a_long_name", "not a plain file name", _map("a", "x" * 300)),
    _index("shard_with_nul", "not a plain file name", _map("a", "a\0b")),
    _index("shard_not_text", "weight_map", _map("a", 3)),
    _index("shard_link_out", "link out of its folder", _link_out),
    _index("shard_missing", "no such file", _drop_shard),
    _index("tensor_in_two_shards", "two shards", _twice),
    _index("tensor_not_in_index", "'b'.*not in the index", _drop_entry),
    _index("tensor_not_in_shard", "'zz'.*is not in", _more),
    _index("false_total_size", "total_size", _false_size),
    _index("no_weight_map", "weight_map", _no_map),
    _index("hundred_thousand_entries", "'t0'", _many_entries),
]  # fmt: skip
