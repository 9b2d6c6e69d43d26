"""What was written is read back before it takes its place, and compared with what was given."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lastcli.containers.base import Reader, TensorInfo, TensorSource
from lastcli.containers.container import Container
from lastcli.containers.digests import fingerprint
from lastcli.containers.extras import STRUCTURE_KEY, dumps
from lastcli.containers.filesystem import fsync
from lastcli.containers.hashing import THREADS, fingerprint_of
from lastcli.containers.inputs import same_bytes, shown
from lastcli.containers.jobs import Job
from lastcli.containers.safetensors.reader import SafetensorsReader, Stretch
from lastcli.containers.structure import of
from lastcli.errors import InputError, OutputError

__all__ = ["Shards", "compare"]


def compare(temp: Path, job: Job, container: Container, done: Collection[str] = ()) -> None:
    """Read the output back and compare it with what was given.

    Args:
        done: tensors that `Shards` has compared; the files that hold them are the same since.

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
            _refuse_other(job, [(reader, info) for name, info in reader.tensors.items() if name not in done])
            if _text(reader.extras, held) != _text(job.extras, held):
                raise OutputError(f"{job.where}: the leaves that are no tensors read back differ from what was given.")
            if keeps and (dict(reader.metadata) != dict(job.metadata) or dict(reader.digests) != job.digests):
                raise OutputError(f"{job.where}: the metadata read back differ from what was written.")
    except InputError as error:
        raise OutputError(f"{job.where}: what was written cannot be read back ({error}).") from error


class Shards:
    """Shards that are put on the disk, read back and compared while the next ones are written.

    A context manager; at its end nothing of it runs any more.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._infos = job, job.infos()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="last-compare")
        self._begun: list[Future[set[str]]] = []

    def add(self, shard: Path) -> None:
        """A file that is complete, and does not change any more."""
        self._begun.append(self._pool.submit(self._compared, shard))

    def same(self) -> frozenset[str]:
        """The tensors that are what was written, once all shards are compared; of any other shape or dtype none.

        Raises:
            OutputError: one is another than was written.
            OSError: a shard could not be put on the disk.
        """
        return frozenset().union(*(waiting.result() for waiting in self._begun))

    def _compared(self, shard: Path) -> set[str]:
        fsync(shard)
        job = self._job
        try:
            with SafetensorsReader(shard) as reader:
                found = [(reader, info) for name, info in reader.tensors.items() if self._infos.get(name) == info]
                # writing and hashing of the next shard go on meanwhile
                _refuse_other(job, found, threads=max(1, THREADS // 2))
        except InputError as error:
            raise OutputError(f"{job.where}: what was written cannot be read back ({error}).") from error
        return {info.name for _, info in found}

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _refuse_other(job: Job, found: Sequence[tuple[Reader, TensorInfo]], threads: int = THREADS) -> None:
    for name, same in _compared(job, found, threads):
        if not same:
            raise OutputError(f"{job.where}: tensor '{shown(name)}' read back differs from what was written.")


def _compared(job: Job, found: Sequence[tuple[Reader, TensorInfo]], threads: int) -> Iterator[tuple[str, bool]]:
    """Of every tensor whether it is what was written; several at once where the readers' bytes may be read so."""
    if not all(reader.in_pieces for reader, _ in found):
        yield from (
            (info.name, fingerprint(reader.load(info.name)) == job.digests[info.name]) for reader, info in found
        )
        return
    sources = {source.info.name: source for source in job.sources}

    def same(at: tuple[Reader, TensorInfo]) -> bool:
        # what was copied is compared with what it was copied of, byte by byte, which is much faster than its sha256;
        # that decides where the input is another one by now
        reader, info = at
        return _is_copy(reader, sources[info.name]) or fingerprint_of(reader, info) == job.digests[info.name]

    # the largest first, so that no thread comes to it when the others are done
    found = sorted(found, key=lambda at: -at[1].nbytes)
    with ThreadPoolExecutor(threads) as pool:
        yield from zip((info.name for _, info in found), pool.map(same, found), strict=True)


def _is_copy(reader: Reader, source: TensorSource) -> bool:
    """Whether a tensor read back is, byte by byte, what the source gives in pieces."""
    if source.pieces is None:
        return False
    try:
        found, given = reader.load_pieces(source.info.name), source.pieces()
        if isinstance(found, Stretch) and isinstance(given, Stretch):
            return found.same(given)
        return all(same_bytes(one, other) for one, other in zip(found, given, strict=True))
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
