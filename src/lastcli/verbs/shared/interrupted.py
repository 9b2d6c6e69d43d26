"""Matching of outputs that was interrupted (`--resume FILE`), in files beside FILE, from which it goes on.

One file to a student in the folder `FILE.matching`, named by what it was fitted from and on. Those that are done stay
until the command is: a gradual pruning or a sweep that is run again finds all its finished stages. With several
processes nothing is kept: they match together, or each some rows.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lastcli.containers.atomic import write_file
from lastcli.containers.inputs import shown
from lastcli.containers.place import writing_errors
from lastcli.errors import InputError
from lastcli.parallel import processes

__all__ = ["KeptMatchings", "forget_matchings", "matchings_beside"]

# Seconds between two writings of a descent that goes on.
EVERY = 10.0
# As `lastcli.reduction.unfinished.identity_of` names them.
_OURS = re.compile(r"[0-9a-f]{32}\.npz")


class KeptMatchings:
    """The files of one run; as `lastcli.reduction.unfinished.Unfinished`.

    Args:
        folder: where they lie.
        note: told once that something was found.
    """

    def __init__(self, folder: Path, note: Callable[[str], None]):
        self._folder, self._note = folder, note
        self._written = -np.inf
        self._told = False

    def read(self, name: str, like: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray] | None:
        """What was kept under a name, arrays named, shaped and typed as those of `like`; None where nothing was.

        Raises:
            InputError: the file is damaged, or its arrays are others.
        """
        from zipfile import BadZipFile

        path = self._folder / f"{name}.npz"
        if processes.count_all() > 1 or not path.exists():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                found = {key: arrays[key] for key in arrays.files}
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise InputError(f"{shown(path, 1000)} is damaged; remove it, and the matching begins anew.") from error
        if _kinds(found) != _kinds(like()):
            raise InputError(
                f"{shown(path, 1000)} was changed or written by another version; remove it, and the matching begins "
                "anew."
            )
        if not self._told:
            self._note(f"Going on with the matching of outputs kept in {shown(self._folder, 1000)}.")
        self._told = True
        return found

    def write(self, name: str, arrays: Callable[[], dict[str, np.ndarray]], *, done: bool) -> None:
        """Keep what is there; of a descent that is not `done` every ten seconds.

        Raises:
            OutputError: it cannot be written.
        """
        if processes.count_all() > 1 or not (done or time.monotonic() >= self._written + EVERY):
            return
        buffer = io.BytesIO()
        np.savez(buffer, **arrays())  # type: ignore[arg-type]
        with writing_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        write_file(self._folder / f"{name}.npz", buffer.getvalue(), force=True)
        self._written = time.monotonic()


def _kinds(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def matchings_beside(resume: str | Path | None, note: Callable[[str], None]) -> KeptMatchings | None:
    """The files that go with `--resume FILE`; None without."""
    return None if resume is None else KeptMatchings(_beside(resume), note)


def forget_matchings(resume: str | Path | None) -> None:
    """Remove them: the command is done. What else lies there stays, and the folder with it."""
    if resume is None or processes.index() > 0 or not _beside(resume).is_dir():
        return
    # what cannot be removed costs nothing but its place, and the command is done
    with contextlib.suppress(OSError):
        for path in _beside(resume).iterdir():
            if _OURS.fullmatch(path.name):
                path.unlink()
        if not any(_beside(resume).iterdir()):
            _beside(resume).rmdir()


def _beside(resume: str | Path) -> Path:
    return Path(f"{resume}.matching")
