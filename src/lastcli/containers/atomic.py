"""Safe writing. The protocol, which every container's writer goes through:

1. The output is made under a temporary name in the folder where it will stand, so that the last step is a rename.
2. Every file is flushed to the disk, then the folders that hold them.
3. The caller reads the temporary output back and compares.
4. One rename puts it in place: over the old file with `force`, else only where nothing stands (a hard link, which
   fails if somebody else was faster). An old folder is first moved aside, and moved back if the rename fails.
5. Whatever happens before that, an exception, SIGINT or SIGTERM, the temporary output is removed and the old one whole.

Files get the mode that the umask gives. An output path that is a symbolic link is written through: the file it
points to is replaced, the link stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lastcli.containers.inputs import shown
from lastcli.containers.place import check_place, writing_errors
from lastcli.errors import OutputError

__all__ = ["Stage", "check_sidecar", "staged", "terminable", "write_file"]

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class Stage:
    """An output being made.

    Attributes:
        path: the output as the user named it.
        target: where it will stand, symbolic links followed.
        temp: the temporary file or folder to write into; a file does not exist yet, a folder does.
    """

    def __init__(self, path: Path, folder: bool, force: bool) -> None:
        """Check the place and choose the temporary name.

        Raises:
            OutputError: something stands there and `force` is not given, or nothing can be written there.
        """
        self.path, self._folder, self._force = path, folder, force
        self.target = check_place(path, folder=folder, force=force)
        self.temp = self.target.parent / f".last-{secrets.token_hex(6)}.tmp"
        if folder:
            with writing_errors(path):
                self.temp.mkdir()

    def flush(self) -> None:
        """Put everything written so far on the disk."""
        with writing_errors(self.path):
            if self._folder:
                for folder, _, files in os.walk(self.temp):
                    for file in files:
                        _fsync(Path(folder) / file)
                    _fsync(Path(folder))
            else:
                _fsync(self.temp)

    def commit(self, sidecar: Path | None = None, text: str = "") -> None:
        """Put the output, and the sidecar with that text, in place.

        Raises:
            OutputError: a sidecar that says something else is there and `force` is not given; or a rename failed, in
                which case everything is as before.
        """
        with writing_errors(self.path):
            if sidecar is None:
                self._place()
            else:
                with _replaced(sidecar, text, self._force):
                    self._place()
            _fsync(self.target.parent)

    def _place(self) -> None:
        if self._folder:
            self._place_folder()
        elif self._force:
            self.temp.replace(self.target)
        else:
            _place_new(self.temp, self.target)

    def _place_folder(self) -> None:
        if not os.path.lexists(self.target):
            self.temp.rename(self.target)
            return
        if not self._force:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.target))
        aside = self.target.parent / f".last-{secrets.token_hex(6)}.old"
        self.target.rename(aside)
        try:
            self.temp.rename(self.target)
        except BaseException:
            aside.rename(self.target)
            raise
        shutil.rmtree(aside, ignore_errors=True)

    def discard(self) -> None:
        """Remove the temporary output, if it is still there."""
        if self._folder:
            shutil.rmtree(self.temp, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                self.temp.unlink()


@contextlib.contextmanager
def staged(path: Path, *, folder: bool, force: bool) -> Iterator[Stage]:
    """A `Stage` whose temporary output is gone at the end, whatever happens; call `commit` inside to keep it.

    Raises:
        OutputError: see `check_place`.
    """
    with terminable():
        stage = Stage(path, folder, force)
        try:
            yield stage
        finally:
            stage.discard()


def write_file(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write a file that is no checkpoint (a plot), as safely as one.

    Raises:
        OutputError: something stands there and `force` is not given, or it cannot be written.
    """
    with staged(path, folder=False, force=force) as stage:
        with writing_errors(path):
            stage.temp.write_bytes(data)
        stage.flush()
        stage.commit()


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the body as Ctrl-C does, so that temporary files are removed.

    Only where nobody handles it: not in another thread, not in a program with a handler of its own, not twice.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def check_sidecar(sidecar: Path, text: str, force: bool) -> None:
    """Refuse to replace a sidecar.

    Raises:
        OutputError: one that says something else than `text` is there and `force` is not given, or it is no file.
    """
    sidecar = Path(os.path.realpath(sidecar))
    if not os.path.lexists(sidecar):
        return
    old = sidecar.read_bytes() if sidecar.is_file() else None
    if old is None or (old != _encoded(text) and not force):
        raise OutputError(
            f"{shown(sidecar, 1000)} says something else; choose another name or give --force to replace it."
        )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _place_new(temp: Path, target: Path) -> None:
    """Rename that never replaces: a hard link, or where the file system has none, a check and a rename."""
    try:
        os.link(temp, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        temp.replace(target)
    else:
        temp.unlink()


@contextlib.contextmanager
def _replaced(sidecar: Path, text: str, force: bool) -> Iterator[None]:
    """Put the sidecar in place; put the old one back if the body fails."""
    data = _encoded(text)
    sidecar = Path(os.path.realpath(sidecar))
    check_sidecar(sidecar, text, force)
    old = sidecar.read_bytes() if sidecar.is_file() else None
    temp = sidecar.parent / f".last-{secrets.token_hex(6)}.tmp"
    try:
        _write_bytes(temp, data)
        temp.replace(sidecar)
        try:
            yield
        except BaseException:
            if old is None:
                sidecar.unlink()
            else:
                _write_bytes(temp, old)
                temp.replace(sidecar)
            raise
    finally:
        temp.unlink(missing_ok=True)


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some file systems cannot flush a folder; the rename is then as durable as they make it
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
