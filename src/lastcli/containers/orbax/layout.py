"""Where in a folder the orbax items lie, and whether they are finished.

A checkpoint is either one item (`_METADATA` in the folder itself), a step of a CheckpointManager (items in folders
below), or a manager's folder (steps below, named "5", "step_5", "checkpoint_5"), of which the last finished step
counts. orbax renames a folder into place when it is done; an unfinished one still has the temporary name, or no commit
time in `_CHECKPOINT_METADATA` and no commit marker. Restoring such a folder with orbax itself works without a word.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from lastcli.containers.inputs import read_small, shown
from lastcli.errors import InputError
from lastcli.mappings import parse_json

__all__ = [
    "CHECKPOINT_FILE",
    "COMMIT_FILE",
    "STEP",
    "TEMPORARY",
    "TREE_FILE",
    "Items",
    "find_items",
    "read_json",
    "stranger",
]

TREE_FILE = "_METADATA"
CHECKPOINT_FILE = "_CHECKPOINT_METADATA"
COMMIT_FILE = "commit_success.txt"

TEMPORARY = ".orbax-checkpoint-tmp"
STEP = re.compile(r"(?:[A-Za-z]\w*_)?(\d+)")
"""The name of a step's folder."""

_MAX_JSON = 2**28

_OWN_FILES = {TREE_FILE, CHECKPOINT_FILE, COMMIT_FILE, "_strings.json", "_sharding", "manifest.ocdbt"}
_STORE_FOLDER = re.compile(r"d|array_metadatas|ocdbt\.process_\w+")
_STORE_FILE = re.compile(r"[0-9a-f]{32}|manifest\.ocdbt|process_\d+|d")
_ARRAY_FILE = re.compile(r"\.zarray|\.zattrs|zarr\.json|c|c?[0-9]+([./][0-9]+)*")


class Items(NamedTuple):
    """The items to read.

    Attributes:
        folders: the folder of each item by name; the name "" for a folder that is itself the item.
        custom: the custom metadata of the checkpoint.
        notes: what was chosen or left out, one sentence each.
    """

    folders: dict[str, Path]
    custom: dict[str, Any]
    notes: tuple[str, ...] = ()


class _UnfinishedError(InputError):
    """A save that did not come to its end."""


def find_items(path: Path) -> Items:
    """The items of a checkpoint; of a folder of steps, those of the last one that was saved to its end.

    Raises:
        InputError: there are none, or the checkpoint is unfinished or damaged.
    """
    _refuse_unfinished(path)
    if (path / TREE_FILE).is_file():
        return Items({"": path}, _custom(path))
    inner = sorted(item for item in path.iterdir() if item.is_dir())
    items = {item.name: item for item in inner if (item / TREE_FILE).is_file()}
    if items:
        for item in items.values():
            _refuse_unfinished(item)
        left = [item.name for item in inner if item.name not in (*items, "d")]
        notes = tuple(
            f"The item '{shown(name)}' holds no tensors that last reads and is not carried on." for name in left
        )
        return Items(items, _custom(path), notes)
    return _last_finished(path, inner)


def _last_finished(path: Path, inner: list[Path]) -> Items:
    """The items of the newest step that is whole, and a note that names the newer ones that are not."""
    steps = sorted(((int(match[1]), item) for item in inner if (match := STEP.fullmatch(item.name))), reverse=True)
    unfinished = [item.name for item in inner if TEMPORARY in item.name]
    for number, step in steps:
        try:
            found = find_items(step)
        except _UnfinishedError:
            unfinished.append(step.name)
            continue
        notes = []
        if len(steps) > 1:
            notes.append(f"Of the {len(steps)} steps in the folder the last finished one, {number}, was read.")
        notes += [_not_read(name) for name in unfinished if _number(name) >= number]
        return Items(found.folders, found.custom, (*notes, *found.notes))
    where = shown(path, 1000)
    if unfinished:
        names = ", ".join(f"'{shown(name)}'" for name in unfinished)
        raise _UnfinishedError(
            f"{where}: the orbax checkpoint holds only an unfinished save ({names}); use one that was saved to its end."
        )
    raise _UnfinishedError(
        f"{where}: the orbax checkpoint has no {TREE_FILE}, so its tree is not known; use one that was saved to its "
        "end."
    )


def _number(name: str) -> float:
    """The step that a folder's name tells; infinite where it tells none."""
    match = STEP.fullmatch(name.partition(TEMPORARY)[0])
    return int(match[1]) if match else float("inf")


def _not_read(name: str) -> str:
    return f"The save '{shown(name)}' was not finished and is not read."


def stranger(folder: Path) -> str | None:
    """The first thing in the folder that is no part of the one item it is; see `base.Folder`.

    A step, or the folder of a CheckpointManager, holds others: the first of them counts.

    Raises:
        InputError: the item is damaged.
    """
    names = sorted(item.name for item in folder.iterdir())
    if TREE_FILE not in names:
        return names[0] if names else None
    entries = read_json(folder / TREE_FILE).get("tree_metadata")
    arrays = {_parameter(entry) for entry in entries.values()} if isinstance(entries, dict) else set()
    for name in names:
        path = folder / name
        if name in arrays or _STORE_FOLDER.fullmatch(name):
            known = _ARRAY_FILE if name in arrays else _STORE_FILE
            inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
            alien = sorted(item for item in inner if not _is_part(item, path, known))
            if alien:
                return alien[0].relative_to(folder).as_posix()
        elif name not in _OWN_FILES or not path.is_file():
            return name
    return None


def _is_part(item: Path, folder: Path, known: re.Pattern[str]) -> bool:
    within = item.relative_to(folder)
    if known is _STORE_FILE:
        return all(known.fullmatch(part) for part in within.parts)
    text = within.as_posix()
    return known.fullmatch(text.removeprefix("c/")) is not None


def _parameter(entry: Any) -> str:
    """The name of the folder of an array: its path joined with "."."""
    steps = entry.get("key_metadata") if isinstance(entry, dict) else None
    if not isinstance(steps, list):
        return ""
    return ".".join(str(step.get("key")) for step in steps if isinstance(step, dict))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint's folder.

    Raises:
        InputError: missing, damaged or no object.
    """
    document = parse_json(read_small(path, _MAX_JSON), shown(path, 1000))
    if not isinstance(document, dict):
        raise InputError(f"{shown(path, 1000)} is not a JSON object; the checkpoint is damaged.")
    return document


def _refuse_unfinished(path: Path) -> None:
    unfinished = TEMPORARY in path.name
    if not unfinished and (path / CHECKPOINT_FILE).is_file() and not (path / COMMIT_FILE).is_file():
        unfinished = read_json(path / CHECKPOINT_FILE).get("commit_timestamp_nsecs") is None
    if unfinished:
        raise _UnfinishedError(
            f"{shown(path, 1000)} is an unfinished orbax checkpoint; use one that was saved to its end."
        )


def _custom(path: Path) -> dict[str, Any]:
    if not (path / CHECKPOINT_FILE).is_file():
        return {}
    custom = read_json(path / CHECKPOINT_FILE).get("custom_metadata")
    return custom if isinstance(custom, dict) else {}
