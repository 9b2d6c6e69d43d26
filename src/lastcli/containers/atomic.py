"""Safe writing. The protocol, which every container's writer goes through:

1. The output is made in a box (see `boxes`), a folder beside where it will stand, so that the last step is a rename.
2. Every file is flushed to the disk, then the folders that hold them.
3. The caller reads the temporary output back and compares.
4. One rename puts it in place: over the old file with `force`, else only where nothing stands (a hard link, which
   fails if somebody else was faster). A folder is exchanged with the old one in one step where the system can.
5. Where two steps are needed, for a sidecar or where there is no exchange, a journal in the box says first what is to
   be done. A run that is killed between them is finished by the next one. SIGINT and SIGTERM wait for the end of it.
6. Whatever happens before that, an exception, SIGINT or SIGTERM, the temporary output is removed and the old one whole.
   Only finished shards stay in the box, where a file keeps account of them (`finished`).

What is replaced keeps its mode; new files get the mode that the umask gives. An output path that is a symbolic link is
written through: the file it points to is replaced, the link stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from lastcli.containers.boxes import Box, Journal, finish_left
from lastcli.containers.exchange import exchange
from lastcli.containers.filesystem import fsync, identity, link_or_copy, place_new, write_bytes
from lastcli.containers.inputs import shown
from lastcli.containers.place import check_place, writing_errors
from lastcli.containers.sidecar import same_but_digests
from lastcli.containers.signals import terminable, undisturbed
from lastcli.errors import OutputError

__all__ = ["Stage", "check_sidecar", "staged", "write_file"]


class Stage:
    """An output being made.

    Attributes:
        path: the output as the user named it.
        target: where it will stand, symbolic links followed.
        temp: the temporary file or folder to write into; a file does not exist yet, a folder does.
        keeps: asked of `temp` where the output does not get to its place: whether the box stays for a later run.
    """

    def __init__(self, path: Path, folder: bool, force: bool) -> None:
        """Check the place, settle what killed runs left there, and make the box.

        Raises:
            OutputError: something stands there and `force` is not given, or nothing can be written there.
        """
        self.path, self._folder, self._force = path, folder, force
        finish_left(path)
        self.target = check_place(path, folder=folder, force=force)
        self._undone = self._placed = False
        self.keeps: Callable[[Path], bool] = lambda data: False
        with writing_errors(path):
            self._box = Box(self.target.parent)
            self.temp = self._box.path / "data"
            try:
                if folder:
                    self.temp.mkdir()
            except BaseException:
                self._box.discard()
                raise

    def flush(self) -> None:
        """Put everything written so far on the disk, with the mode of what it will replace."""
        with writing_errors(self.path):
            self._keep_mode()
            if self._folder:
                for folder, _, files in os.walk(self.temp):
                    for file in files:
                        fsync(Path(folder) / file)
                    fsync(Path(folder))
            else:
                fsync(self.temp)

    def commit(self, sidecar: Path | None = None, text: str = "") -> None:
        """Put the output, and the sidecar with that text, in place.

        Raises:
            OutputError: a sidecar that says something else is there and `force` is not given; or a rename failed, in
                which case everything is as before.
        """
        with writing_errors(self.path), undisturbed():
            if sidecar is None:
                self._place()
            else:
                self._place_both(sidecar, text)
            self._placed = True
            fsync(self.target.parent)

    @property
    def box(self) -> Path:
        """The folder that `temp` lies in."""
        return self._box.path

    def discard(self) -> None:
        """Remove the temporary output, if it is still there and not kept."""
        if self._undone or (not self._placed and self.temp.is_dir() and self.keeps(self.temp)):
            self._box.leave()
        else:
            self._box.discard()

    def _place(self) -> None:
        if self._folder:
            self._place_folder()
        elif self._force:
            self.temp.replace(self.target)
        else:
            place_new(self.temp, self.target)

    def _place_folder(self) -> None:
        if not os.path.lexists(self.target):
            self.temp.rename(self.target)
            return
        if not self._force:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.target))
        if exchange(self.temp, self.target):
            return
        aside = self._box.path / "old"
        self._box.promise(self._journal())
        self.target.rename(aside)
        try:
            self.temp.rename(self.target)
        except BaseException:
            with self._or_left_to_the_next_run():
                aside.rename(self.target)
            raise

    def _place_both(self, sidecar: Path, text: str) -> None:
        """The sidecar, then the output; the sidecar as before where that fails."""
        beside = Path(os.path.realpath(sidecar))
        check_sidecar(sidecar, text, self._force)
        if beside.parent == self.target.parent:
            self._place_after(beside, text, self._box, self._journal(beside.name))
            return
        # through links the two lie in different folders, which no box spans
        box = Box(beside.parent)
        try:
            self._place_after(beside, text, box, None)
        finally:
            box.discard()

    def _place_after(self, sidecar: Path, text: str, box: Box, journal: Journal | None) -> None:
        new, old = box.path / "sidecar", box.path / "sidecar.old"
        write_bytes(new, _encoded(text))
        if sidecar.is_file():
            new.chmod(stat.S_IMODE(sidecar.stat().st_mode))
            link_or_copy(sidecar, old)
        if journal is not None:
            box.promise(journal)
        new.replace(sidecar)
        try:
            self._place()
        except BaseException:
            with self._or_left_to_the_next_run():
                if old.exists():
                    old.replace(sidecar)
                else:
                    sidecar.unlink()
            raise

    def _journal(self, sidecar: str | None = None) -> Journal:
        return Journal(self.target.name, identity(self.target) if self._force else None, sidecar)

    @contextlib.contextmanager
    def _or_left_to_the_next_run(self) -> Iterator[None]:
        """Steps that undo others: if they fail as well, the box stays, and the next run finishes it."""
        try:
            yield
        except OSError:
            self._undone = True
            raise

    def _keep_mode(self) -> None:
        """The mode of what is replaced; in a folder, for every file what all the old ones allowed."""
        if not os.path.lexists(self.target):
            return
        if not self._folder:
            self.temp.chmod(stat.S_IMODE(self.target.stat().st_mode))
            return
        modes = {True: stat.S_IMODE(self.target.stat().st_mode) | stat.S_IRWXU, False: 0o777}
        for item in (item.lstat() for item in self.target.rglob("*")):
            owner = stat.S_IRWXU if stat.S_ISDIR(item.st_mode) else 0
            modes[stat.S_ISDIR(item.st_mode)] &= item.st_mode | owner
        if modes[False] == 0o777:
            modes[False] = 0o666 & modes[True]
        for path in (self.temp, *self.temp.rglob("*")):
            path.chmod(modes[path.is_dir()])


@contextlib.contextmanager
def staged(path: Path, *, folder: bool, force: bool) -> Iterator[Stage]:
    """A `Stage` whose temporary output is gone at the end, whatever happens; call `commit` inside to keep it.

    Raises:
        OutputError: see `check_place`.
    """
    stage = None
    with terminable():
        try:
            with undisturbed():
                stage = Stage(path, folder, force)
            yield stage
        finally:
            if stage is not None:
                with undisturbed():
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


def check_sidecar(sidecar: Path, text: str, force: bool) -> None:
    """Refuse to replace a sidecar.

    Raises:
        OutputError: one that says something else than `text` is there and `force` is not given, it is no file, or
            standard output was sent there.
    """
    sidecar = Path(os.path.realpath(sidecar))
    if not os.path.lexists(sidecar):
        return
    if _is_written_to(sidecar):
        raise OutputError(
            f"{shown(sidecar, 1000)} is where the description of the output goes, and what this command prints goes "
            "there too; send that to a file of another name."
        )
    old = sidecar.read_bytes() if sidecar.is_file() else None
    if old is None or (not force and not same_but_digests(old, text)):
        raise OutputError(
            f"{shown(sidecar, 1000)} says something else; choose another name or give --force to replace it."
        )


def _is_written_to(path: Path) -> bool:
    """Whether standard output or standard error is that file, as a shell makes it with `> NAME.json`."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return True
    return False


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
