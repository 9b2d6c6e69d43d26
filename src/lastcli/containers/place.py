"""Where an output may go: the one set of checks, made before any work and again when the output is written."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lastcli.containers.inputs import shown
from lastcli.errors import OutputError

__all__ = ["check_place", "writing_errors"]


def check_place(path: Path, *, folder: bool = False, force: bool = False, inputs: Sequence[Path] = ()) -> Path:
    """Refuse a place where an output cannot or must not stand.

    Args:
        path: the output as the user named it.
        folder: whether the output is a folder.
        force: whether what stands there may be replaced.
        inputs: files and folders that were read, which are never replaced.

    Returns:
        Where the output will stand, symbolic links followed.

    Raises:
        OutputError: the place is an input or holds one, is the working folder or above it, is taken, or nothing can
            be written there.
    """
    name = shown(path, 1000)
    if "\0" in str(path):
        raise OutputError(f"{name} is not a possible file name; choose another.")
    with writing_errors(path):
        target = Path(os.path.realpath(path))
        _refuse_above(path, target)
        if target.is_symlink():
            raise OutputError(f"{name}: the symbolic links run in a circle; remove them.")
        if not target.parent.is_dir():
            raise OutputError(f"{name}: the folder {shown(target.parent, 1000)} does not exist; create it first.")
        if not os.path.lexists(target):
            return target
        _refuse_inputs(path, target, inputs)
        if not force:
            raise OutputError(f"{name} exists; choose another name or give --force to replace it.")
        if folder and not target.is_dir():
            raise OutputError(f"{name} is a file and the output is a folder; choose another name.")
        if not folder and not target.is_file():
            raise OutputError(f"{name} is not a regular file and will not be replaced; choose another name.")
    return target


def _refuse_above(path: Path, target: Path) -> None:
    """An empty name, `.`, `..`, `/` and the like: whoever gives one means no output."""
    here = Path.cwd()
    if target == here:
        raise OutputError(
            f"The output '{shown(path, 1000)}' is the working folder itself, as an empty name is (an unset variable?); "
            "name a file or a new folder."
        )
    if target in here.parents or target.parent == target:
        raise OutputError(
            f"The output '{shown(path, 1000)}' is a folder above the working folder, which is never replaced; name a "
            "file or a new folder."
        )


def _refuse_inputs(path: Path, target: Path, inputs: Sequence[Path]) -> None:
    for item in inputs:
        if "\0" in str(item):
            # there is no such input, as whoever opens it will say
            continue
        if target in item.resolve().parents:
            raise OutputError(f"{shown(path, 1000)}: the input lies in this folder; choose another name.")
        if not item.exists() or not target.samefile(item):
            continue
        if target == item.resolve():
            raise OutputError(f"{shown(path, 1000)}: this is the input; choose another name for the output.")
        raise OutputError(f"{shown(path, 1000)}: this is the input under another name; choose another output.")


@contextlib.contextmanager
def writing_errors(path: Path) -> Iterator[None]:
    """Turn operating system errors into an `OutputError` about `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{shown(path, 1000)}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    reasons = {
        errno.ENOSPC: "the disk is full; free some space or write elsewhere.",
        errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere.",
        errno.EFBIG: "the file grows over the allowed size; raise the limit (ulimit -f) or write elsewhere.",
        errno.EACCES: "no permission to write there; choose another place.",
        errno.EPERM: "no permission to write there; choose another place.",
        errno.EROFS: "the file system is read-only; choose another place.",
        errno.ENOENT: "the folder does not exist; create it first.",
        errno.ENOTDIR: "a part of the path is not a folder; choose another place.",
        errno.ELOOP: "the symbolic links run in a circle; remove them.",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one.",
        errno.EEXIST: "something was put there meanwhile; choose another name or give --force to replace it.",
    }
    text = reasons.get(error.errno or 0)
    return text or f"writing failed ({error.strerror or error}); choose another place."
