"""The finished shards of an output (`--resume FILE`), so that an interrupted run need not write them again.

The file is a journal of JSON lines. The first says what is being written: a digest of the metadata, of every tensor's
name, shape and dtype, of the size of a shard, and of what the caller says decides the values. A further line names a
box (see `boxes`) in which shards are made, or a shard that is complete and on the disk, with the fingerprints of its
tensors. A box that is named there and whose mark names the file back is left alone by other runs. The next run of the
same job takes the finished shards over, once their bytes are what the journal says; of another job it takes none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lastcli.containers.base import TensorSource
from lastcli.containers.boxes import left_box, mark_kept
from lastcli.containers.extras import dumps
from lastcli.containers.filesystem import fsync
from lastcli.containers.hashing import fingerprint_of
from lastcli.containers.inputs import shown
from lastcli.containers.jobs import Job
from lastcli.containers.journal import open_journal
from lastcli.containers.safetensors.reader import SafetensorsReader
from lastcli.errors import InputError

__all__ = ["Finished", "finished_shards"]

SCHEMA = "last.shards/1"
_LOG = logging.getLogger("lastcli")


class Finished:
    """The journal of one output, open and locked.

    Attributes:
        shards: name → {tensor: fingerprint} of the shards that are finished.
        taken: names of those that this run took over.
    """

    def __init__(self, path: Path, file: BinaryIO, job: str) -> None:
        self._path, self._file = path, file
        self.shards: dict[str, dict[str, str]] = {}
        self.taken: list[str] = []
        self._boxes: list[str] = []
        self._read(job)

    def begin(self, box: Path, data: Path) -> None:
        """Shards are made in this box from now on; those of earlier ones are moved into `data`."""
        mark_kept(box, self._path)
        earlier, self._boxes = self._boxes, [box.name]
        self._append({"box": box.name})
        for name in earlier:
            with left_box(box.parent / name) as there:
                for shard in self.shards if there else ():
                    with contextlib.suppress(OSError):
                        (box.parent / name / "data" / shard).replace(data / shard)

    def take(self, path: Path, sources: Sequence[TensorSource]) -> dict[str, str] | None:
        """Fingerprints of a shard's tensors if it is there and holds what was written; else it is to be written."""
        digests = self.shards.pop(path.name, None)
        if digests is not None and _holds(path, sources, digests):
            self.shards[path.name] = digests
            self.taken.append(path.name)
            return digests
        path.unlink(missing_ok=True)
        return None

    def add(self, path: Path, digests: Mapping[str, str]) -> None:
        """One more finished shard; it is on the disk when this returns."""
        fsync(path)
        fsync(path.parent)
        self.shards[path.name] = dict(digests)
        self._append({"shard": path.name, "digests": dict(digests)})

    def keeps(self, data: Path) -> bool:
        """Whether there is something for the next run, of an output that did not get to its place; the rest goes."""
        for file in data.iterdir():
            if file.name not in self.shards:
                file.unlink(missing_ok=True)
        return bool(self.shards)

    def done(self) -> None:
        """The output is in its place."""
        self._path.unlink(missing_ok=True)

    def _read(self, job: str) -> None:
        where = shown(self._path, 1000)
        whole, _, rest = self._file.read().rpartition(b"\n")
        entries = [_entry(line) for line in whole.splitlines()]
        if (entries and (entries[0] or {}).get("schema") != SCHEMA) or (rest and not entries and not _ours(rest)):
            raise InputError(f"{where} holds no finished shards; name another file with --resume.")
        if entries and entries[0] is not None and entries[0].get("job") != job:
            _LOG.warning(f"{where} holds shards of another run (another model, plan or shard size): all are written.")
            entries = []
        for entry in entries[1:]:
            if entry is not None and isinstance(entry.get("box"), str):
                self._boxes.append(entry["box"])
            elif entry is not None and isinstance(entry.get("digests"), dict):
                self.shards[str(entry.get("shard"))] = entry["digests"]
        self._file.seek(len(whole) + 1 if entries else 0)
        self._file.truncate()
        if not entries:
            self._append({"schema": SCHEMA, "job": job})

    def _append(self, document: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(document).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


@contextlib.contextmanager
def finished_shards(path: Path, job: Job, identity: str) -> Iterator[Finished]:
    """The journal at `path` for a job; `identity` says what else decides its values.

    Raises:
        InputError: the file is something else.
        OutputError: it cannot be written, or another run is writing it.
    """
    where = shown(path, 1000)
    with open_journal(path, "finished shards") as file:
        found = Finished(path.absolute(), file, _digest(job, identity))
        if found.shards:
            _LOG.warning(f"Going on from {len(found.shards)} finished shards in {where}.")
        yield found


def _digest(job: Job, identity: str) -> str:
    infos = [[s.info.name, list(s.info.shape), s.info.dtype] for s in job.sources]
    document = [dict(job.metadata), dumps(dict(job.extras)), infos, job.shard_bytes, identity]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _holds(path: Path, sources: Sequence[TensorSource], digests: Mapping[str, str]) -> bool:
    """Whether a shard holds just these tensors with these fingerprints."""
    try:
        with SafetensorsReader(path) as reader:
            if dict(reader.tensors) != {source.info.name: source.info for source in sources}:
                return False
            for name, info in reader.tensors.items():
                if digests.get(name) != fingerprint_of(reader, info):
                    return False
    except InputError:
        return False
    return True


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _ours(start: bytes) -> bool:
    """Whether a first line that was never finished is the beginning of ours."""
    return json.dumps({"schema": SCHEMA})[:-1].encode().startswith(start[: len(SCHEMA)])
