"""Digests beside other work: hashlib lets go of the interpreter, so a thread hashes while another reads and writes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lastcli.containers import inputs
from lastcli.containers.base import Reader, TensorInfo
from lastcli.containers.digests import Running
from lastcli.errors import InputError

__all__ = ["THREADS", "FileHash", "Hasher", "fingerprint_of", "hasher", "unreadable"]

THREADS = min(4, os.cpu_count() or 1)
"""Threads that look at tensors which need not be looked at in order."""

# Pieces that may wait to be hashed.
_WAITING = 8


class Hasher:
    """One thread that takes pieces in the order in which they are given."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="last-hash")
        self._waiting: deque[Future[None]] = deque()

    def add(self, running: Running, piece: memoryview) -> None:
        """Take a piece in; it must not change. Waits where too much is waiting already."""
        self._waiting.append(self._pool.submit(running.update, piece))
        while len(self._waiting) > _WAITING:
            self._waiting.popleft().result()

    def wait(self) -> None:
        """Until everything given is taken in."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """End the thread; what still waits is forgotten."""
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def hasher() -> Iterator[Hasher]:
    """A `Hasher` that is closed at the end."""
    found = Hasher()
    try:
        yield found
    finally:
        found.close()


def fingerprint_of(reader: Reader, info: TensorInfo) -> str:
    """The fingerprint of a tensor of an open file, read in pieces.

    Raises:
        InputError: the bytes are missing or cut short.
    """
    running = Running(info.dtype, info.shape)
    for piece in reader.load_pieces(info.name):
        running.update(piece)
    return running.text()


def unreadable(path: Path, error: OSError) -> InputError:
    """What there is to say where a file could not be hashed."""
    return InputError(
        f"{inputs.shown(path, 1000)} could not be read to its end ({error.strerror or error}); was it moved or removed "
        "meanwhile? Run the command again once it is in its place."
    )


class FileHash:
    """The sha256 of a file, or of a folder's files, computed by a thread from the moment this is made.

    Of a folder it is over every file's path within it and its content, in sorted order.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped = threading.Event()
        self._found: Future[str] = Future()
        threading.Thread(target=self._run, name="last-sha256", daemon=True).start()

    def result(self) -> str:
        """In hexadecimal digits, once it is known.

        Raises:
            InputError: a file could not be read, or is no longer there.
        """
        try:
            return self._found.result()
        except OSError as error:
            raise unreadable(self._path, error) from error

    def begin(self, copied: Collection[str]) -> None:
        """It began when this was made; see `ShardsHash.begin`."""

    def stop(self) -> None:
        """Nobody asks any more."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            self._found.set_result(self._digest())
        except BaseException as error:
            self._found.set_exception(error)

    def _digest(self) -> str:
        path, digest = self._path, hashlib.sha256()
        buffer = memoryview(bytearray(inputs.PIECE))
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            if file != path:
                digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            with file.open("rb", buffering=0) as stream:
                while count := stream.readinto(buffer):
                    if self._stopped.is_set():
                        raise InterruptedError("nobody asks any more")
                    digest.update(buffer[:count])
        return digest.hexdigest()
