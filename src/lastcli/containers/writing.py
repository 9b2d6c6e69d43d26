"""Writing a checkpoint: stage, write, flush, read back and compare, put in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lastcli.containers.atomic import check_sidecar, staged
from lastcli.containers.base import Reader, TensorSource
from lastcli.containers.companions import CONFIG
from lastcli.containers.container import Container
from lastcli.containers.digests import DIGESTS_KEY
from lastcli.containers.dtypes import ITEMSIZE, safe_nbytes
from lastcli.containers.extras import STRUCTURE_KEY, representable
from lastcli.containers.finished import finished_shards
from lastcli.containers.inputs import shown, stored_bytes
from lastcli.containers.jobs import Job
from lastcli.containers.outputs import check_output, check_resume, config_place, container_to_write
from lastcli.containers.place import writing_errors
from lastcli.containers.readback import Shards, compare
from lastcli.containers.sidecar import CONTAINER_KEY, sidecar_path, sidecar_text, without_kept
from lastcli.containers.structure import of, restricted
from lastcli.errors import OutputError

__all__ = ["Receipt", "write"]


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
    container = container_to_write(path, kind, shard_bytes)
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
            shards = stack.enter_context(Shards(job))
            job.shard_written = shards.add
            if container.write is not None:
                container.write(stage.temp, job)
            for name, data in (companions or {}).items() if shard_bytes is not None else ():
                (stage.temp / name).write_bytes(data)
            if inside and config is not None:
                (stage.temp / CONFIG).write_text(config, encoding="utf-8")
            done = shards.same()
        stage.flush()
        compare(stage.temp, job, container, done)
        size = stored_bytes(stage.temp)
        stage.commit(other, "" if other is None else _beside(job, container) if other == beside else config or "")
        if account is not None:
            account.done()
    return Receipt(path, container.name, size, beside)


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
