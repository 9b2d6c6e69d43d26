"""Writing safetensors: the header first, then one tensor at a time, so that no more than one is in memory, then the
header again with the digests of what was written.

The tensors' bytes are laid out by falling element size, so that each begins at a multiple of it; the header lists
them in the order given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lastcli.containers.base import TensorSource
from lastcli.containers.digests import DIGESTS_KEY
from lastcli.containers.dtypes import ITEMSIZE, SAFETENSORS_CODES
from lastcli.containers.flushing import flushing
from lastcli.containers.hashing import Hasher, hasher
from lastcli.containers.inputs import shown
from lastcli.containers.jobs import Job
from lastcli.containers.safetensors.reader import MAX_HEADER
from lastcli.errors import OutputError

__all__ = ["INDEX_NAME", "write_safetensors", "write_sharded"]

INDEX_NAME = "model.safetensors.index.json"


def write_safetensors(temp: Path, job: Job) -> None:
    """Write one file.

    Raises:
        OutputError: the format cannot hold a tensor, a name or that much header.
    """
    with hasher() as hashing:
        _write_file(temp, job, job.sources, hashing, whole=True)


def write_sharded(temp: Path, job: Job) -> None:
    """Write a folder of shards and their index into the folder `temp`; the metadata stand in the index.

    Raises:
        OutputError: as `write_safetensors`.
    """
    shards = _shards(job.sources, job.shard_bytes or 1)
    weight_map: dict[str, str] = {}
    with hasher() as hashing:
        for number, shard in enumerate(shards, 1):
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            _write_shard(temp / name, job, shard, hashing)
            if job.shard_written is not None:
                job.shard_written(temp / name)
            weight_map |= {source.info.name: name for source in shard}
    job.settle()
    metadata = job.text
    total = sum(source.info.nbytes for source in job.sources)
    index = {"metadata": {"total_size": total, **metadata}, "weight_map": weight_map}
    try:
        text = json.dumps(index, indent=1, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise OutputError(f"{job.where}: a name or metadata is not valid Unicode text; rename it.") from error
    (temp / INDEX_NAME).write_bytes(text)


def _write_shard(path: Path, job: Job, sources: Sequence[TensorSource], hashing: Hasher) -> None:
    """Write a shard, unless an interrupted run has."""
    there = None if job.finished is None else job.finished.take(path, sources)
    if there is not None:
        job.digests |= there
        if job.progress is not None:
            job.progress(sum(source.info.nbytes for source in sources))
        return
    _write_file(path, job, sources, hashing, whole=False)
    if job.finished is not None:
        job.finished.add(path, {source.info.name: job.digests[source.info.name] for source in sources})


def _shards(sources: Sequence[TensorSource], limit: int) -> list[list[TensorSource]]:
    """The sources in order, a new shard where the next tensor would make the last one too large."""
    shards: list[list[TensorSource]] = [[]]
    size = 0
    for source in sources:
        if shards[-1] and size + source.info.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(source)
        size += source.info.nbytes
    return shards


def _write_file(temp: Path, job: Job, sources: Sequence[TensorSource], hashing: Hasher, *, whole: bool) -> None:
    """Write one file: the whole checkpoint with its metadata, or a shard."""
    layout = sorted(sources, key=lambda source: -ITEMSIZE[source.info.dtype])
    names = [source.info.name for source in sources]

    def header() -> bytes:
        metadata = {key: text for key, text in job.text.items() if whole or key == "format"}
        return _header(job, sources, layout, {**metadata, DIGESTS_KEY: job.digests_text(names)})

    with temp.open("xb") as file:
        # its digests are still zeros; they become known as the tensors are written, and do not change its length
        # (nor do metadata that are settled later)
        blank = header()
        file.write(len(blank).to_bytes(8, "little"))
        file.write(blank)
        with flushing(file) as flush:
            for source in layout:
                for piece in job.pieces(source, hashing):
                    file.write(piece)
                    flush.wrote(len(piece))
            job.take_digests(hashing)
        if whole:
            job.settle()
        settled = header()
        if len(settled) != len(blank):
            raise RuntimeError("the header has another length than before")
        file.seek(8)
        file.write(settled)


def _header(
    job: Job, sources: Sequence[TensorSource], layout: Sequence[TensorSource], metadata: dict[str, str]
) -> bytes:
    begins: dict[str, int] = {}
    end = 0
    for source in layout:
        begins[source.info.name] = end
        end += source.info.nbytes
    document: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    for info in (source.info for source in sources):
        if info.dtype not in SAFETENSORS_CODES:
            raise OutputError(
                f"{job.where}: safetensors cannot hold tensor '{shown(info.name)}' of dtype {info.dtype}; "
                "write a .msgpack file or an orbax folder instead."
            )
        if info.name == "__metadata__":
            raise OutputError(f"{job.where}: safetensors keeps the name '__metadata__' for itself; rename the tensor.")
        begin = begins[info.name]
        document[info.name] = {
            "dtype": SAFETENSORS_CODES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [begin, begin + info.nbytes],
        }
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise OutputError(f"{job.where}: a name or metadata is not valid Unicode text; rename it.") from error
    # data begin at a multiple of 8 bytes, so that every tensor is aligned when the file is mapped
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise OutputError(
            f"{job.where}: the safetensors header would exceed {MAX_HEADER:,} bytes; write shards instead."
        )
    return text
