"""Single steps on a file system: names that never replace another, second names, and what is on the disk afterwards."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["fsync", "identity", "link_or_copy", "place_new", "write_bytes"]

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def place_new(temp: Path, target: Path) -> None:
    """Rename that never replaces: a hard link, or where the file system has none, a check and a rename."""
    try:
        os.link(temp, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        temp.replace(target)


def identity(path: Path) -> list[int] | None:
    """What tells a file or folder from another of the same name; None where nothing is there."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size]


def link_or_copy(source: Path, target: Path) -> None:
    """Another name for a file, or where there are no hard links its copy."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        write_bytes(target, source.read_bytes())
        target.chmod(source.stat().st_mode & 0o7777)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and put it on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fsync(path: Path) -> None:
    """Put a file or a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some file systems cannot flush a folder; the rename is then as durable as they make it
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
