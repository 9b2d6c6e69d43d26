"""The sha256 of a folder of shards, for which a tensor that is copied meanwhile is hashed once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from lastcli.containers.digests import Running
from lastcli.containers.hashing import THREADS, FileHash, InputHash, take_in, unreadable
from lastcli.containers.safetensors.sharded import ShardedReader

__all__ = ["ShardsHash"]


class ShardsHash(InputHash):
    """The sha256 of a folder with a model in shards, over its files in sorted order: path, zero byte, content of each.

    In the place of the content of a shard that the index names stands its header, with the eight bytes before it, and
    then the fingerprint of each of its tensors (`digests.fingerprint`) in the order of their bytes; in the place of any
    other content its sha256. A shard is its header and its tensors without a gap, so that every byte counts; and the
    fingerprints are known to whoever copies the tensors.
    """

    def __init__(self, reader: ShardedReader) -> None:
        self._reader = reader
        self._contents: dict[Path, str] = {}
        self._stopped = threading.Event()
        self._begun: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="last-sha256")

    def begin(self, copied: Collection[str]) -> None:
        """See `InputHash.begin`: a thread hashes the tensors that are not copied, and the other files."""
        self._begun.append(self._pool.submit(self._hash, self._missing(copied)))

    def result(self) -> str:
        """See `InputHash.result`. What nobody has hashed is hashed now, several files and tensors at once."""
        return self._found

    def is_of(self, sha256: str) -> bool:
        """See `InputHash.is_of`; the one over the contents of all files as they are was kept before."""
        return sha256 == self._found or sha256 == self._of_contents

    def stop(self) -> None:
        """See `InputHash.stop`."""
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    @cached_property
    def _found(self) -> str:
        try:
            for begun in self._begun:
                begun.result()
            missing = self._missing(())
            for part in [self._pool.submit(self._hash, missing[start::THREADS]) for start in range(THREADS)]:
                part.result()
            return self._digest()
        except OSError as error:
            raise unreadable(self._reader.path, error) from error

    @cached_property
    def _of_contents(self) -> str:
        return FileHash(self._reader.path).result()

    def _missing(self, copied: Collection[str]) -> list[str | Path]:
        """Tensors and files of which nobody knows the sha256 or is about to."""
        tensors, known = self._reader.tensors, self._reader.fingerprints
        names = [name for name in tensors if name not in known and name not in copied]
        # the largest first, so that no thread comes to it when the others are done
        names.sort(key=lambda name: -tensors[name].nbytes)
        shards = self._shards()
        return [*names, *(file for file in self._files() if file not in shards and file not in self._contents)]

    def _hash(self, parts: Sequence[str | Path]) -> None:
        for part in parts:
            if isinstance(part, Path):
                digest = hashlib.sha256()
                take_in(digest, part, self._stopped)
                self._contents[part] = digest.hexdigest()
                continue
            info = self._reader.tensors[part]
            running = Running(info.dtype, info.shape)
            for piece in self._reader.load_pieces(part):
                if self._stopped.is_set():
                    raise InterruptedError("nobody asks any more")
                running.update(piece)
            self._reader.fingerprints[part] = running.text()

    def _digest(self) -> str:
        digest, reader, shards = hashlib.sha256(), self._reader, self._shards()
        for file in self._files():
            digest.update(file.relative_to(reader.path).as_posix().encode() + b"\0")
            if file not in shards:
                digest.update(self._contents[file].encode())
                continue
            for part in reader.outline(file.name):
                digest.update(part if isinstance(part, bytes) else reader.fingerprints[part].encode())
        return digest.hexdigest()

    def _shards(self) -> set[Path]:
        return {self._reader.path / shard for shard in self._reader.shards}

    def _files(self) -> list[Path]:
        return sorted(file for file in self._reader.path.rglob("*") if file.is_file())
