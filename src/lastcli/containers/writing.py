"""Writing a checkpoint: stage, write, flush, read back and compare, put in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lastcli.containers.atomic import check_sidecar, staged
from lastcli.containers.base import Reader, TensorInfo, TensorSource
from lastcli.containers.boxes import finish_left
from lastcli.containers.companions import is_companion
from lastcli.containers.container import Container
from lastcli.containers.digests import DIGESTS_KEY, fingerprint
from lastcli.containers.dtypes import ITEMSIZE, safe_nbytes
from lastcli.containers.extras import STRUCTURE_KEY, dumps, representable
from lastcli.containers.finished import finished_shards
from lastcli.containers.hashing import THREADS, fingerprint_of
from lastcli.containers.inputs import same_bytes, shown, stored_bytes
from lastcli.containers.jobs import Job
from lastcli.containers.place import check_place, writing_errors
from lastcli.containers.registry import CONTAINERS, container_for, container_named, container_of
from lastcli.containers.sidecar import CONTAINER_KEY, sidecar_path, sidecar_text, without_kept
from lastcli.containers.structure import of, restricted
from lastcli.errors import InputError, OutputError, UsageError

__all__ = ["CONFIG", "Receipt", "check_output", "check_resume", "config_place", "write"]

CONFIG = "config.json"
"""The file from which other libraries build the model beside it."""

# The name under which they look for its tensors.
_MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class Receipt:
    """What was written.

    Attributes:
        path: the output as named.
        kind: its container.
        bytes: its size on disk, the sidecar not counted.
        sidecar: the description beside it, None where the container carries it itself.
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
    companions: Mapping[str, bytes] | None = None,
    progress: Callable[[int], None] | None = None,
    config: str | None = None,
    late: Callable[[], Mapping[str, str]] | None = None,
    resume: Path | None = None,
    identity: str = "",
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
        companions: files {name: bytes} for other programs, put into a folder of shards together with them.
        progress: called with the number of bytes of every tensor written.
        config: text of the `config.json` that goes with it, put in place in the same step where it has a place
            (`config_place`).
        late: gives `metadata` as they are in the end, each text as long as before, for what is still being computed
            while the tensors are written.
        resume: a file that keeps account of finished shards, which a later run of the same job takes over (`finished`).
        identity: with `resume`, what decides the tensors' values beside metadata, names, shapes and dtypes.

    Raises:
        OutputError: it cannot be written there, or not in this container; what was there before is whole.
        UsageError: shards were asked for in another container, or are to be kept and there are none.
        InputError: a source could not be read, or `resume` is another file.
    """
    path = Path(path)
    container = _chosen(path, kind, shard_bytes)
    check_resume(resume, path, shard_bytes)
    sources = tuple(sources)
    form = {STRUCTURE_KEY: of(template.extras)} if template is not None and of(template.extras) else {}
    kept = restricted({**form, **(extras or {})}, {source.info.name for source in sources})
    sources, kept = container.arrange(sources, kept)
    origin = {} if template is None else container.origin(template)
    job = Job(
        path,
        sources,
        without_kept({**origin, **metadata}),
        kept,
        container.native,
        container.shows,
        template=template,
        shard_bytes=shard_bytes,
        progress=progress,
        late=None if late is None else lambda: without_kept({**origin, **late()}),
    )
    _check(job)
    inputs = () if template is None else (template.path,)
    brought = companions or {}
    check_output(
        path, inputs=inputs, kind=container.name, shard_bytes=shard_bytes, force=force, companions=brought.keys()
    )
    beside = None if container.keeps_metadata else sidecar_path(path)
    place = None if config is None else config_place(path, kind=container.name, shard_bytes=shard_bytes)
    inside = place is not None and place.parent == path
    other = beside if place is None or inside else place
    if other is not None:
        with writing_errors(other):
            check_sidecar(other, _beside(job, container) if other == beside else config or "", force)
    with ExitStack() as stack:
        account = None
        if resume is not None:
            job.settle()
            account = job.finished = stack.enter_context(finished_shards(resume, job, identity))
        stage = stack.enter_context(staged(path, folder=container.makes_folder(shard_bytes), force=force))
        with writing_errors(path):
            if account is not None:
                stage.keeps = account.keeps
                account.begin(stage.box, stage.temp)
            if not container.settles:
                job.settle()
            if container.write is not None:
                container.write(stage.temp, job)
            for name, data in (companions or {}).items() if shard_bytes is not None else ():
                (stage.temp / name).write_bytes(data)
            if inside and config is not None:
                (stage.temp / CONFIG).write_text(config, encoding="utf-8")
        stage.flush()
        _compare(stage.temp, job, container)
        size = stored_bytes(stage.temp)
        stage.commit(other, "" if other is None else _beside(job, container) if other == beside else config or "")
        if account is not None:
            account.done()
    return Receipt(path, container.name, size, beside)


def check_resume(
    resume: str | Path | None, path: Path, shard_bytes: int | None, *, anything_else: bool = False
) -> None:
    """Refuse to keep account of shards where there are none.

    Args:
        anything_else: whether there is something else that the file keeps account of.

    Raises:
        UsageError: the output is no folder of shards, or the account would lie in it.
    """
    if resume is None:
        return
    if shard_bytes is None and not anything_else:
        raise UsageError(
            "--resume keeps finished shards and the matching of outputs, and here is neither; write shards with "
            "--shard-size, or match the outputs with --refit match."
        )
    target, file = (Path(os.path.realpath(one)) for one in (path, resume))
    if target == file or target in file.parents:
        raise UsageError(f"--resume {shown(resume, 1000)} lies in the output; name a file beside it.")


def check_output(
    path: Path,
    *,
    inputs: Sequence[Path] = (),
    kind: str | None = None,
    shard_bytes: int | None = None,
    force: bool = False,
    companions: Collection[str] = (),
) -> None:
    """Refuse an output that `write` would refuse for its place or name: to be called before any work.

    Args:
        path: the output.
        inputs: the checkpoints that were read, which are never replaced.
        kind: as in `write`.
        shard_bytes: as in `write`.
        force: whether what is there may be replaced.
        companions: names of the files for other programs that will be written with it.

    Raises:
        OutputError: the output is an input, is taken, has an unknown suffix, nothing can be written there, or what is
            replaced holds a tokenizer that the new checkpoint does not bring.
        UsageError: shards were asked for in another container.
    """
    path = Path(path)
    container = _chosen(path, kind, shard_bytes)
    folder = container.makes_folder(shard_bytes)
    finish_left(path)
    target = check_place(path, folder=folder, force=force, inputs=inputs)
    with writing_errors(path):
        if folder and target.is_dir() and any(target.iterdir()):
            _refuse_loss(path, target, container)
    _refuse_lost_companions(path, companions)


def _refuse_lost_companions(path: Path, written: Collection[str]) -> None:
    """A tokenizer in a folder that is replaced belongs to it only where the new folder brings its own."""
    if not path.is_dir():
        return
    for name in sorted(item.name for item in path.iterdir()):
        if is_companion(name) and name != CONFIG and name not in written:
            raise OutputError(
                f"{shown(path, 1000)} holds {name}, which the new checkpoint does not bring, so the folder is not "
                "replaced; move the file away, or choose another place."
            )


def config_place(path: Path, *, kind: str | None = None, shard_bytes: int | None = None) -> Path | None:
    """Where the `config.json` of an output goes: among its shards, or beside `model.safetensors`; else nowhere.

    Raises:
        OutputError: the output's suffix is unknown.
    """
    path = Path(path)
    container = _chosen(path, kind, shard_bytes)
    if not container.shards:
        return None
    if container.makes_folder(shard_bytes):
        return path / CONFIG
    return path.with_name(CONFIG) if path.name == _MODEL_FILE else None


def _chosen(path: Path, kind: str | None, shard_bytes: int | None) -> Container:
    """The container to write."""
    if kind is not None:
        container = container_named(kind)
    elif shard_bytes is not None:
        container = next(item for item in CONTAINERS.values() if item.shards)
    else:
        container = container_for(path)
    if shard_bytes is not None and (not container.shards or shard_bytes < 1):
        able = " or ".join(item.name for item in CONTAINERS.values() if item.shards)
        raise UsageError(f"Shards are written only as {able}, of at least one byte each.")
    if container.write is None:
        raise OutputError(
            f"{shown(path, 1000)}: a {container.title} is read and never written, since opening one can run anything; "
            "write a .safetensors file."
        )
    return container


def _refuse_loss(path: Path, target: Path, container: Container) -> None:
    """A folder is replaced only if nothing but one checkpoint of the container that is written is lost."""
    where = shown(path, 1000)
    try:
        existing = container_of(target)
        stranger = None if existing.folder is None else existing.folder.stranger(target)
    except InputError as error:
        raise OutputError(f"{where} is a folder that is no checkpoint or no whole one; choose another name.") from error
    if existing is not container:
        raise OutputError(
            f"{where} is a folder of {existing.title} and the output one of {container.title}; choose another name."
        )
    if stranger is not None:
        raise OutputError(
            f"{where} holds '{shown(stranger)}', which is no part of one {container.title} checkpoint and would be "
            "lost; choose another name."
        )


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


def _beside(job: Job, container: Container) -> str:
    """The text of the sidecar."""
    return sidecar_text({**job.text, CONTAINER_KEY: container.name, DIGESTS_KEY: job.digests_text()})


def _compare(temp: Path, job: Job, container: Container) -> None:
    """Read the output back and compare it with what was given.

    Raises:
        OutputError: they differ.
    """
    keeps = container.keeps_metadata
    held = set(job.extras if keeps else job.own)
    try:
        name = _own_name(job) if container.several_models else None
        with container.open(temp, name) if container.reopen is None else container.reopen(temp, job) as reader:
            if dict(reader.tensors) != job.infos():
                raise OutputError(f"{job.where}: the file read back lists other tensors than were written.")
            for name, same in _compared(reader, job):
                if not same:
                    raise OutputError(f"{job.where}: tensor '{shown(name)}' read back differs from what was written.")
            if _text(reader.extras, held) != _text(job.extras, held):
                raise OutputError(f"{job.where}: the leaves that are no tensors read back differ from what was given.")
            if keeps and (dict(reader.metadata) != dict(job.metadata) or dict(reader.digests) != job.digests):
                raise OutputError(f"{job.where}: the metadata read back differ from what was written.")
    except InputError as error:
        raise OutputError(f"{job.where}: what was written cannot be read back ({error}).") from error


def _compared(reader: Reader, job: Job) -> Iterator[tuple[str, bool]]:
    """Of every tensor whether it is what was written; several at once where the reader's bytes may be read so."""
    if not reader.in_pieces:
        yield from ((name, fingerprint(reader.load(name)) == job.digests[name]) for name in reader.tensors)
        return
    sources = {source.info.name: source for source in job.sources}

    def same(info: TensorInfo) -> bool:
        # what was copied is compared with what it was copied of, byte by byte, which is much faster than its sha256;
        # that decides where the input is another one by now
        return _is_copy(reader, sources[info.name]) or fingerprint_of(reader, info) == job.digests[info.name]

    # the largest first, so that no thread comes to it when the others are done
    infos = sorted(reader.tensors.values(), key=lambda info: -info.nbytes)
    with ThreadPoolExecutor(THREADS) as pool:
        yield from zip((info.name for info in infos), pool.map(same, infos), strict=True)


def _is_copy(reader: Reader, source: TensorSource) -> bool:
    """Whether a tensor read back is, byte by byte, what the source gives in pieces."""
    if source.pieces is None:
        return False
    try:
        pieces = zip(reader.load_pieces(source.info.name), source.pieces(), strict=True)
        return all(same_bytes(found, given) for found, given in pieces)
    except (InputError, ValueError):
        return False


def _own_name(job: Job) -> str | None:
    """What a container with several models calls the one that was written, if other tensors may be taken for one."""
    form = of(job.extras).get("torch", {})
    return "/".join(form.get("at", [])) if form.get("others") or form.get("beside") else None


def _text(extras: Mapping[str, Any], held: set[str]) -> str:
    """The extras that the file itself must show, in a form that compares NaN equal to itself, in no order.

    Left out: the structure and the signs that children are a list, which nested containers make anew.
    """
    names = sorted(name for name in extras if name in held and name != STRUCTURE_KEY and extras[name] != [])
    return dumps({name: extras[name] for name in names})
