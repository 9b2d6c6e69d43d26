"""Digests beside other work: hashlib lets go of the interpreter, so a thread hashes while another reads and writes."""

from __future__ import annotations

import abc
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

__all__ = ["THREADS", "FileHash", "Hasher", "InputHash", "fingerprint_of", "hasher", "take_in", "unreadable"]

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


def take_in(digest: hashlib._Hash, file: Path, stopped: threading.Event) -> None:
    """All bytes of a file.

    Raises:
        OSError: it could not be read, or nobody asks any more.
    """
    buffer = memoryview(bytearray(inputs.PIECE))
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            if stopped.is_set():
                raise InterruptedError("nobody asks any more")
            digest.update(buffer[:count])


class InputHash(abc.ABC):
    """The sha256 by which the record of an output names its input, computed beside whatever else is done."""

    @abc.abstractmethod
    def begin(self, copied: Collection[str]) -> None:
        """Be told, before a run copies tensors, which ones: they are hashed on their way."""

    @abc.abstractmethod
    def result(self) -> str:
        """In hexadecimal digits, once it is known.

        Raises:
            InputError: a file could not be read, is cut short, or is no longer there.
        """

    @abc.abstractmethod
    def is_of(self, sha256: str) -> bool:
        """Whether a record names this input, by the sha256 as it is taken now or was in earlier versions.

        Raises:
            InputError: as `result`.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Nobody asks any more."""


class FileHash(InputHash):
    """The sha256 of a file, or of a folder's files, computed by a thread from the moment this is made.

    Of a folder it is over every file's path within it and its content, in sorted order.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped = threading.Event()
        self._found: Future[str] = Future()
        threading.Thread(target=self._run, name="last-sha256", daemon=True).start()

    def result(self) -> str:
        """See `InputHash.result`."""
        try:
            return self._found.result()
        except OSError as error:
            raise unreadable(self._path, error) from error

    def begin(self, copied: Collection[str]) -> None:
        """See `InputHash.begin`: it has begun, and hashes all of the file."""

    def is_of(self, sha256: str) -> bool:
        """See `InputHash.is_of`."""
        return sha256 == self.result()

    def stop(self) -> None:
        """See `InputHash.stop`."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            self._found.set_result(self._digest())
        except BaseException as error:
            self._found.set_exception(error)

    def _digest(self) -> str:
        path, digest = self._path, hashlib.sha256()
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            if file != path:
                digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            take_in(digest, file, self._stopped)
        return digest.hexdigest()
