"""Guarded reading: regular files only, bounded sizes, names that are safe to print."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lastcli.errors import InputError

__all__ = [
    "PIECE",
    "RandomAccess",
    "is_file",
    "is_folder",
    "is_unicode",
    "read_small",
    "same_bytes",
    "shown",
    "stored_bytes",
]


PIECE = 2**20
"""Bytes that are read at once where a tensor need not be in memory as a whole."""


def shown(name: object, limit: int = 100) -> str:
    """A name from a file as it may be printed: control characters escaped, the middle of a long one cut."""
    text = str(name)
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-limit // 4 :]}"
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character)[0] == "C" else character
        for character in text
    )


def is_folder(path: Path) -> bool:
    """Whether a folder is there; a path that cannot be looked at is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether a file is there; a path that cannot be looked at, such as one with too long a name, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8: no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def stored_bytes(path: Path) -> int:
    """Bytes on disk of a file, or of all files of a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def same_bytes(first: memoryview, second: memoryview) -> bool:
    """Whether two stretches of bytes are the same."""
    # a memoryview compares itself item by item
    words = len(first) // 8
    return (
        len(first) == len(second)
        and np.array_equal(np.frombuffer(first, np.uint64, words), np.frombuffer(second, np.uint64, words))
        and first[8 * words :] == second[8 * words :]
    )


class RandomAccess:
    """A regular file read by position (`pread`), so that a file cut short while open is an error and not a signal.

    Attributes:
        path: the file.
        size: its size in bytes when it was opened.
    """

    def __init__(self, path: Path) -> None:
        """Open.

        Raises:
            InputError: missing, unreadable, a folder, a pipe or a device.
        """
        self.path = path
        self._descriptor = -1
        where = shown(path, 1000)
        try:
            # a FIFO without a writer would block in open; O_NONBLOCK returns and fstat then tells what it is
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            status = os.fstat(self._descriptor)
        except (OSError, ValueError) as error:
            raise InputError(f"{where}: {_reason(error)}.") from error
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise InputError(f"{where} is not a regular file; give the path of a checkpoint.")
        self.size = status.st_size

    def read_into(self, buffer: memoryview, offset: int, what: str) -> None:
        """Fill `buffer` from `offset`.

        Raises:
            InputError: the file ends before; `what` names what was being read.
        """
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            except OSError as error:
                raise InputError(f"{shown(self.path, 1000)}: reading {what} failed: {_reason(error)}.") from error
            if count == 0:
                raise InputError(f"{shown(self.path, 1000)} ends inside {what}; the file is cut short, copy it again.")
            done += count

    def read(self, offset: int, count: int, what: str) -> bytes:
        """`count` bytes from `offset`, at most what the file holds (checked before anything is allocated).

        Raises:
            InputError: the file ends before.
        """
        if count < 0 or offset + count > self.size:
            raise InputError(f"{shown(self.path, 1000)} ends inside {what}; the file is cut short, copy it again.")
        buffer = bytearray(count)
        self.read_into(memoryview(buffer), offset, what)
        return bytes(buffer)

    def read_array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype, what: str) -> np.ndarray:
        """A C-contiguous array from its bytes at `offset`; the caller has checked that they lie inside the file."""
        array = np.empty(shape, dtype)
        if array.nbytes:
            self.read_into(array.reshape(-1).view(np.uint8).data, offset, what)
        return array

    def read_pieces(self, offset: int, count: int, what: str) -> Iterator[memoryview]:
        """`count` bytes from `offset` in pieces of at most `PIECE`; as `read_array`."""
        for start in range(0, count, PIECE):
            piece = np.empty(min(PIECE, count - start), np.uint8).data
            self.read_into(piece, offset + start, what)
            yield piece

    def close(self) -> None:
        """Release the file; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_small(path: Path, limit: int) -> bytes:
    """The whole of a small file (JSON beside the tensors).

    Raises:
        InputError: not a readable regular file, or longer than `limit` bytes.
    """
    file = RandomAccess(path)
    try:
        if file.size > limit:
            raise InputError(f"{shown(path, 1000)} is {file.size:,} bytes; at most {limit:,} are read.")
        return file.read(0, file.size, "the file")
    finally:
        file.close()


def _reason(error: OSError | ValueError) -> str:
    """The user's side of an operating system error."""
    if not isinstance(error, OSError):
        return "not a possible file name"
    reasons = {
        errno.ENOENT: "no such file or folder",
        errno.EACCES: "no permission to read it",
        errno.EPERM: "no permission to read it",
        errno.EISDIR: "this is a folder, not a file",
        errno.ELOOP: "the symbolic links run in a circle",
        errno.ENXIO: "this is not a regular file",
        errno.ENAMETOOLONG: "the file name is too long",
    }
    return reasons.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
