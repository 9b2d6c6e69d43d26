"""The folder in which an output is made, and what is done with one whose run was killed.

A box is a folder `.last-HOST-PID-START-TOKEN.new` beside the output, closed to others:

    data            the output, complete and on the disk before anything is put in place
    sidecar         the sidecar NAME.json, where there is one
    sidecar.old     the sidecar that stood there
    old             the folder that stood there, where two names cannot be exchanged in one step
    kept            the file of finished shards (see `finished`) that the box belongs to, where it belongs to one
    journal         what is to be put in place: written only when two steps are needed, and all is ready for them

So a box without a journal is worth nothing and is removed, unless a file of finished shards still names it, and one
with a journal is finished, whatever step its run came to. Its owner holds a lock on it; nobody touches a box that is
locked, or whose process is alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lastcli.containers.filesystem import fsync, identity, write_bytes
from lastcli.containers.inputs import shown, stored_bytes
from lastcli.containers.signals import undisturbed

__all__ = [
    "Box",
    "Journal",
    "finish_left",
    "left_box",
    "mark_kept",
]

_NAME = re.compile(r"\.last-([0-9a-f]{8})-([0-9]{1,10})-([0-9]{1,20})-[0-9a-f]{12}\.new")
_DAY = 86_400
_MAX_JOURNAL = 2**16
_LOG = logging.getLogger("lastcli")
_IN_USE: set[Path] = set()


@dataclass(frozen=True)
class Journal:
    """What is to be put in place.

    Attributes:
        target: the output's name in the folder of the box.
        replaces: `identity` of what stood there and is to be replaced, None where nothing did.
        sidecar: the sidecar's name there, None where there is none.
    """

    target: str
    replaces: list[int] | None
    sidecar: str | None = None


class Box:
    """A box of this process.

    Attributes:
        path: the folder.
    """

    def __init__(self, folder: Path) -> None:
        """Make one in the folder and lock it."""
        import secrets

        name = f".last-{_host()}-{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(6)}.new"
        self.path = folder / name
        _IN_USE.add(self.path)
        self._lock = -1
        try:
            self.path.mkdir(0o700)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            _locked(self._lock)
        except BaseException:
            self.discard()
            raise

    def promise(self, journal: Journal) -> None:
        """From here on, whoever finds the box finishes it."""
        fsync(self.path)
        write_bytes(self.path / "journal.tmp", json.dumps(asdict(journal)).encode())
        (self.path / "journal.tmp").replace(self.path / "journal")
        fsync(self.path)

    def leave(self) -> None:
        """Let go of the box without removing it: the next run finishes it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        _IN_USE.discard(self.path)

    def discard(self) -> None:
        """Remove the box and all that is still in it."""
        _remove(self.path)
        self.leave()


def finish_left(path: Path, *, only: bool = False) -> None:
    """Finish or remove the boxes of killed runs in the folder of an output, and say so.

    Args:
        path: the output or input.
        only: just what concerns this path, or the folder that it lies in (the index of its shards may be what is
            opened), is finished and nothing else removed.
    """
    try:
        target = Path(os.path.realpath(path))
    except (OSError, ValueError):
        return
    _finish_in(target.parent, target.name if only else None)
    if only:
        _finish_in(target.parent.parent, target.parent.name)


def _finish_in(folder: Path, name: str | None) -> None:
    """Settle the boxes in a folder: all of them, or only those of the output of that name."""
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if _NAME.fullmatch(entry.name))
    except OSError:
        return
    for entry in found:
        with contextlib.suppress(OSError), undisturbed(), _taken(folder / entry) as taken:
            if taken:
                _settle(folder / entry, name)


def _settle(box: Path, name: str | None) -> None:
    journal = _journal(box)
    if journal is None:
        if name is None and not _is_kept(box):
            size = stored_bytes(box)
            _remove(box)
            _LOG.warning(f"A run that was killed left {shown(box.name)} here ({size:,} bytes); it was removed.")
        return
    if name is not None and name not in (journal.target, journal.sidecar):
        return
    finished = _finish(box, journal)
    fsync(box.parent)
    _remove(box)
    if finished:
        _LOG.warning(
            f"A run that was killed had written '{shown(journal.target)}' but not put it in place; it is in place now."
        )


def mark_kept(box: Path, file: Path) -> None:
    """A run that finds the box leaves it alone while `file` names it."""
    write_bytes(box / "kept", os.fsencode(file))


@contextlib.contextmanager
def left_box(box: Path) -> Iterator[bool]:
    """A box that an interrupted run left for this one, removed at the end; whether it is there and nobody's.

    Whoever asks has the file that names it for itself, so that an owner on another machine is none any more.
    """
    if _NAME.fullmatch(box.name) is None or box.is_symlink() or not box.is_dir():
        yield False
        return
    lock = os.open(box, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        free = box not in _IN_USE and os.fstat(lock).st_uid == os.geteuid() and _locked(lock)
        yield free
        if free:
            _remove(box)
    finally:
        os.close(lock)


def _is_kept(box: Path) -> bool:
    """Whether the file of finished shards that the box belongs to is there and names it."""
    named = json.dumps({"box": box.name}).encode() + b"\n"
    try:
        path = Path(os.fsdecode((box / "kept").read_bytes()[:_MAX_JOURNAL]))
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return named in file
    except (OSError, ValueError):
        return False


def _finish(box: Path, journal: Journal) -> bool:
    """Whether anything was still to be done."""
    folder, data = box.parent, box / "data"
    target = folder / journal.target
    stands = target.exists() and data.exists() and not data.samefile(target)
    if stands and identity(target) != journal.replaces:
        # somebody else's output was put there meanwhile: it keeps its place, and the sidecar is as before
        _undo_sidecar(box, folder, journal)
        return False
    begun = False
    if journal.sidecar is not None and (box / "sidecar").exists():
        (box / "sidecar").replace(folder / journal.sidecar)
        begun = True
    if not data.exists() or (target.exists() and data.samefile(target)):
        return begun
    if data.is_dir() and target.is_dir():
        target.rename(box / "old")
    data.replace(target)
    return True


def _undo_sidecar(box: Path, folder: Path, journal: Journal) -> None:
    if journal.sidecar is None or (box / "sidecar").exists():
        return
    if (box / "sidecar.old").exists():
        (box / "sidecar.old").replace(folder / journal.sidecar)
    else:
        (folder / journal.sidecar).unlink(missing_ok=True)


def _journal(box: Path) -> Journal | None:
    """The journal of a box, None where there is none or one that no run wrote."""
    try:
        with (box / "journal").open("rb") as file:
            document = json.loads(file.read(_MAX_JOURNAL))
        journal = Journal(**document)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    names = [journal.target, *([] if journal.sidecar is None else [journal.sidecar])]
    sound = all(isinstance(name, str) and name not in ("", ".", "..") and "/" not in name for name in names)
    return journal if sound and "\0" not in "".join(names) else None


@contextlib.contextmanager
def _taken(box: Path) -> Iterator[bool]:
    """Whether the box is nobody's: its process is gone, it is ours by its owner, and nobody else is settling it."""
    if box in _IN_USE or box.is_symlink() or not _is_dead(box):
        yield False
        return
    lock = os.open(box, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        yield os.fstat(lock).st_uid == os.geteuid() and _locked(lock)
    finally:
        os.close(lock)


def _is_dead(box: Path) -> bool:
    match = _NAME.fullmatch(box.name)
    if match is None:
        return False
    host, pid, started = match[1], int(match[2]), match[3]
    if host != _host():
        # a process of another machine cannot be seen; no run writes for a day without touching its box
        return time.time() - box.stat().st_mtime > _DAY
    if pid == os.getpid():
        return started != _started(pid) or box not in _IN_USE
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return started != _started(pid)


def _host() -> str:
    # boxes are looked for whenever a file is read, and made where one is written
    import hashlib
    import platform

    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _started(pid: int) -> str:
    """When a process began, in the kernel's count, so that a number used again is not taken for the same process."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return "0"


def _locked(descriptor: int) -> bool:
    """Take the lock, if nobody else has it; where there are no locks the process's life decides alone."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove(box: Path) -> None:
    """The journal first: a box half removed is worth nothing."""
    with contextlib.suppress(OSError):
        (box / "journal").unlink(missing_ok=True)
        shutil.rmtree(box, ignore_errors=True)
