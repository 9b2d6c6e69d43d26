"""orbax folders: the layout, the arrays through TensorStore, reading and writing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lastcli.containers.base import Reader
from lastcli.containers.container import Container, Folder
from lastcli.containers.inputs import is_unicode
from lastcli.containers.orbax.layout import CHECKPOINT_FILE, TEMPORARY, TREE_FILE, stranger
from lastcli.containers.tree import arranged

if TYPE_CHECKING:
    from lastcli.containers.jobs import Job

__all__ = ["CONTAINER"]

_MARKS = (TREE_FILE, CHECKPOINT_FILE, "manifest.ocdbt")


def _holds(path: Path, names: Collection[str]) -> bool:
    """Itself an item, a folder of items or steps, or a save that was not finished."""
    if any(TEMPORARY in name for name in (path.name, *names)) or any(mark in names for mark in _MARKS):
        return True
    below = [path / name for name in names if (path / name).is_dir()]
    return any((folder / mark).is_file() for folder in below for mark in _MARKS)


def _open(path: Path, name: str | None) -> Reader:
    from lastcli.containers.orbax.reader import OrbaxReader

    return OrbaxReader(path)


def _write(temp: Path, job: Job) -> None:
    from lastcli.containers.orbax.writer import write_orbax

    write_orbax(temp, job)


def _native(value: Any) -> bool:
    if value is None or type(value) in (bool, float):
        return True
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if type(value) is str:
        return is_unicode(value)
    return type(value) in (dict, list, tuple) and not value


CONTAINER = Container(
    name="orbax",
    title="orbax",
    help="a folder of zarr arrays and their tree, as orbax.checkpoint makes it",
    source="https://orbax.readthedocs.io/en/latest/guides/checkpoint/checkpoint_format.html",
    page="README.md",
    suffixes=(),
    begins=lambda name, start, size: False,
    folder=Folder(mark="orbax metadata", holds=_holds, stranger=stranger),
    open=_open,
    arrange=arranged,
    write=_write,
    native=_native,
    shows=("paths",),
    keeps_metadata=True,
)
