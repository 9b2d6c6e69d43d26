"""What was written is read back before it takes its place, and compared with what was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lastcli.containers.base import Reader, TensorInfo, TensorSource
from lastcli.containers.container import Container
from lastcli.containers.digests import fingerprint
from lastcli.containers.extras import STRUCTURE_KEY, dumps
from lastcli.containers.hashing import THREADS, fingerprint_of
from lastcli.containers.inputs import same_bytes, shown
from lastcli.containers.jobs import Job
from lastcli.containers.structure import of
from lastcli.errors import InputError, OutputError

__all__ = ["compare"]


def compare(temp: Path, job: Job, container: Container) -> None:
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
