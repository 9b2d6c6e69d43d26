"""Writing a checkpoint: stage, write, flush, read back and compare, put in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lastcli.containers.atomic import staged, writing_errors
from lastcli.containers.base import Reader, TensorSource
from lastcli.containers.dtypes import ITEMSIZE, safe_nbytes
from lastcli.containers.extras import STRUCTURE_KEY, dumps, representable
from lastcli.containers.inputs import shown
from lastcli.containers.jobs import Job, fingerprint
from lastcli.containers.reading import open_kind
from lastcli.containers.registry import kind_for, kind_of
from lastcli.containers.sidecar import sidecar_path, sidecar_text, without_kept
from lastcli.containers.structure import of, restricted
from lastcli.errors import InputError, OutputError, UsageError

__all__ = ["Receipt", "write"]

_SHARD_SUFFIXES = (".safetensors", ".safetensors.index.json")


@dataclass(frozen=True)
class Receipt:
    """What was written.

    Attributes:
        path: the output as named.
        kind: its container.
        bytes: its size on disk, the sidecar not counted.
        sidecar: the description beside it, None where the container carries it itself or there is none.
    """

    path: Path
    kind: str
    bytes: int
    sidecar: Path | None


def write(
    path: Path,
    sources: Sequence[TensorSource],
    *,
    metadata: Mapping[str, str],
    extras: Mapping[str, Any] | None = None,
    kind: str | None = None,
    force: bool = False,
    template: Reader | None = None,
    shard_bytes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Receipt:
    """Write a checkpoint atomically (see `atomic`) and prove by reading it back that it holds what was given.

    Args:
        path: the output; a symbolic link is written through.
        sources: the tensors in order; each is loaded once, when its turn comes.
        metadata: text kept in the file; where the container has none, `metadata["last.description"]` becomes the
            sidecar NAME.json and the rest stands in it.
        extras: leaves that are not tensors, as `Reader.extras` gives them.
        kind: the container; by the suffix of `path` where None.
        force: replace what is there.
        template: the open reader of the input, whose wrappers and prefixes the output gets back.
        shard_bytes: write a folder of safetensors shards of at most so many bytes each (one tensor at least).
        progress: called with the number of bytes of every tensor written.

    Raises:
        OutputError: it cannot be written there, or not in this container; what was there before is whole.
        UsageError: shards were asked for in another container.
        InputError: a source could not be read.
    """
    path = Path(path)
    kind = kind or ("safetensors" if shard_bytes is not None else kind_for(path))
    if shard_bytes is not None and (kind != "safetensors" or shard_bytes < 1):
        raise UsageError("Shards are written only as safetensors, of at least one byte each.")
    folder = kind == "orbax" or shard_bytes is not None
    sources = tuple(sources)
    form = {STRUCTURE_KEY: of(template.extras)} if template is not None and of(template.extras) else {}
    kept = restricted({**form, **(extras or {})}, {source.info.name for source in sources})
    job = Job(path, sources, without_kept(metadata), kept, template, shard_bytes, progress)
    _check(job)
    with writing_errors(path):
        _check_place(job, folder, force)
    emit, sidecar, held = _writer(kind, job)
    with staged(path, folder=folder, force=force) as stage:
        with writing_errors(path):
            emit(stage.temp, job)
        stage.flush()
        _compare(stage.temp, kind, job, held)
        size = _size(stage.temp)
        beside = sidecar_path(path) if sidecar is not None else None
        stage.commit(beside, sidecar or "")
    return Receipt(path, kind, size, beside)


def _writer(kind: str, job: Job) -> tuple[Callable[[Path, Job], None], str | None, set[str]]:
    """The container's writer, the text of the sidecar it needs, and the extras that the file itself will show."""
    if kind == "safetensors":
        from lastcli.containers.safetensors.writer import write_safetensors, write_sharded

        return (write_safetensors if job.shard_bytes is None else write_sharded), None, set(job.extras)
    if kind == "msgpack":
        from lastcli.containers.msgpack.writer import native, write_msgpack

        own, rest = job.split(native, "paths")
        return write_msgpack, sidecar_text(rest), set(own)
    if kind == "orbax":
        from lastcli.containers.orbax.writer import write_orbax

        return write_orbax, None, set(job.extras)
    if kind == "torch":
        from lastcli.containers.torch.writer import native, write_torch

        own, rest = job.split(native, "torch")
        return write_torch, sidecar_text(rest), set(own)
    raise UsageError(f"There is no container '{shown(kind)}'; use safetensors, msgpack, orbax or torch.")


def _check(job: Job) -> None:
    """What no container can hold."""
    names: set[str] = set()
    for info in (source.info for source in job.sources):
        name = shown(info.name)
        if info.name in names:
            raise OutputError(f"{job.where}: two tensors are named '{name}'; nothing was written.")
        names.add(info.name)
        if info.dtype not in ITEMSIZE:
            raise OutputError(
                f"{job.where}: tensor '{name}' has dtype {shown(info.dtype)}, which no container here holds."
            )
        if safe_nbytes(info.shape, info.dtype) != info.nbytes:
            raise OutputError(f"{job.where}: tensor '{name}' says {info.nbytes} bytes, which its shape does not need.")
    for key, value in job.extras.items():
        if key in names and value != []:
            raise OutputError(f"{job.where}: '{shown(key)}' is both a tensor and another leaf; nothing was written.")
        if not representable(value):
            raise OutputError(f"{job.where}: '{shown(key)}' is a {type(value).__name__}, which last cannot store.")


def _check_place(job: Job, folder: bool, force: bool) -> None:
    """The output must not be the input, and a folder is replaced only if nothing but a checkpoint is lost."""
    template, target = job.template, job.path
    if template is not None and target.exists() and template.path.exists() and target.samefile(template.path):
        raise OutputError(f"{job.where} is the input itself; choose another output.")
    if not (folder and force and target.is_dir() and any(target.iterdir())):
        return
    try:
        existing = kind_of(target)
    except InputError as error:
        raise OutputError(f"{job.where} is a folder that is no checkpoint; choose another name.") from error
    if existing == "safetensors":
        alien = sorted({item.name for item in target.iterdir() if not item.name.endswith(_SHARD_SUFFIXES)})
        if alien:
            raise OutputError(f"{job.where} also holds '{shown(alien[0])}', which would be lost; choose another name.")


def _compare(temp: Path, kind: str, job: Job, held: set[str]) -> None:
    """Read the output back and compare it with what was given.

    Raises:
        OutputError: they differ.
    """
    try:
        with open_kind(temp, kind) as reader:
            if dict(reader.tensors) != job.infos():
                raise OutputError(f"{job.where}: the file read back lists other tensors than were written.")
            for name in reader.tensors:
                if fingerprint(reader.read(name)) != job.digests[name]:
                    raise OutputError(f"{job.where}: tensor '{shown(name)}' read back differs from what was written.")
            if _text(reader.extras, held) != _text(job.extras, held):
                raise OutputError(f"{job.where}: the leaves that are no tensors read back differ from what was given.")
            if kind in ("safetensors", "orbax") and dict(reader.metadata) != dict(job.metadata):
                raise OutputError(f"{job.where}: the metadata read back differ from what was written.")
    except InputError as error:
        raise OutputError(f"{job.where}: what was written cannot be read back ({error}).") from error


def _text(extras: Mapping[str, Any], held: set[str]) -> str:
    """The extras that the file itself must show, in a form that compares NaN equal to itself, in no order.

    Left out: the structure and the signs that children are a list, which nested containers make anew.
    """
    names = sorted(name for name in extras if name in held and name != STRUCTURE_KEY and extras[name] != [])
    return dumps({name: extras[name] for name in names})


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum((Path(folder) / file).stat().st_size for folder, _, files in os.walk(path) for file in files)
