"""safetensors: one file, or a folder of shards with its index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lastcli.containers.base import Reader
from lastcli.containers.container import Container, Folder
from lastcli.containers.safetensors.reader import looks_like_safetensors
from lastcli.containers.safetensors.sharded import INDEX_SUFFIX, ShardedReader, open_safetensors, stranger

if TYPE_CHECKING:
    from lastcli.containers.hashing import InputHash
    from lastcli.containers.jobs import Job

__all__ = ["CONTAINER"]

_SUFFIX = ".safetensors"


def _open(path: Path, name: str | None) -> Reader:
    return open_safetensors(path)


def _write(temp: Path, job: Job) -> None:
    from lastcli.containers.safetensors.writer import write_safetensors, write_sharded

    (write_safetensors if job.shard_bytes is None else write_sharded)(temp, job)


def _hashing(reader: Reader) -> InputHash | None:
    from lastcli.containers.safetensors.shards_hash import ShardsHash

    return ShardsHash(reader) if isinstance(reader, ShardedReader) else None


def _origin(reader: Reader) -> dict[str, str]:
    """Whose tensors they are, under `format` as the library's own `save_file` says it: transformers asks for it."""
    return {"format": "pt"} if reader.kind == "torch" else {}


CONTAINER = Container(
    name="safetensors",
    title="safetensors",
    help="one file with a header of names, shapes and dtypes, or a folder of such shards with an index",
    source="https://github.com/huggingface/safetensors#format",
    page="README.md",
    suffixes=(_SUFFIX,),
    begins=lambda name, start, size: name.endswith(INDEX_SUFFIX) or looks_like_safetensors(start, size),
    folder=Folder(
        mark="safetensors files",
        holds=lambda path, names: any(name.endswith((INDEX_SUFFIX, _SUFFIX)) for name in names),
        stranger=stranger,
    ),
    open=_open,
    write=_write,
    origin=_origin,
    hashing=_hashing,
    native=lambda value: False,
    keeps_metadata=True,
    shards=True,
    settles=True,
)
