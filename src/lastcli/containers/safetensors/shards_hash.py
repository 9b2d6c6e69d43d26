"""The sha256 of a folder of shards, for which a tensor that is copied meanwhile is hashed once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lastcli.containers import inputs
from lastcli.containers.digests import Running
from lastcli.containers.hashing import THREADS, unreadable
from lastcli.containers.safetensors.sharded import ShardedReader

__all__ = ["ShardsHash"]


class ShardsHash:
    """The sha256 of a model in shards, over its files in sorted order: of each its path, a zero byte and its content.

    In the place of the content of a shard that the index names stands its header, with the eight bytes before it, and
    then the fingerprint of each of its tensors (`digests.fingerprint`) in the order of their bytes. A shard is its
    header and its tensors without a gap, so that every byte counts; and the fingerprints are known to whoever copies
    the tensors.

    Args:
        path: the folder; of an index alone its own shards count.
        reader: the folder opened.
    """

    def __init__(self, path: Path, reader: ShardedReader) -> None:
        self._path, self._reader = path, reader
        self._stopped = threading.Event()
        self._begun: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="last-sha256")

    def begin(self, copied: Collection[str]) -> None:
        """Hash the tensors that are not copied, from now on, beside whatever else is done."""
        self._begun += self._hashed(copied, at_once=1)

    def result(self) -> str:
        """In hexadecimal digits. What nobody has hashed is hashed now, several tensors at once.

        Raises:
            InputError: a file could not be read, is cut short, or is no longer there.
        """
        for waiting in self._begun:
            waiting.result()
        self._begun.clear()
        for waiting in self._hashed((), at_once=THREADS):
            waiting.result()
        try:
            return self._digest()
        except OSError as error:
            raise unreadable(self._path, error) from error

    def stop(self) -> None:
        """Nobody asks any more."""
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def _hashed(self, others: Collection[str], at_once: int) -> list[Future[None]]:
        known = self._reader.fingerprints
        missing = [name for name in self._reader.tensors if name not in known and name not in others]
        # the largest first, so that no thread comes to it when the others are done
        missing.sort(key=lambda name: -self._reader.tensors[name].nbytes)
        return [self._pool.submit(self._hash, missing[index::at_once]) for index in range(at_once)]

    def _hash(self, names: Collection[str]) -> None:
        for name in names:
            info = self._reader.tensors[name]
            running = Running(info.dtype, info.shape)
            for piece in self._reader.load_pieces(name):
                if self._stopped.is_set():
                    raise InterruptedError("nobody asks any more")
                running.update(piece)
            self._reader.fingerprints[name] = running.text()

    def _digest(self) -> str:
        digest, reader = hashlib.sha256(), self._reader
        shards = {reader.path / shard for shard in reader.shards}
        if self._path.is_dir():
            files = sorted(file for file in self._path.rglob("*") if file.is_file())
        else:
            files = sorted({self._path, *shards})
        for file in files:
            digest.update(file.relative_to(reader.path).as_posix().encode() + b"\0")
            if file in shards:
                for part in reader.outline(file.name):
                    digest.update(part if isinstance(part, bytes) else reader.fingerprints[part].encode())
            else:
                with file.open("rb", buffering=0) as stream:
                    while piece := stream.read(inputs.PIECE):
                        digest.update(piece)
        return digest.hexdigest()
