"""flax msgpack, as `flax.serialization` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lastcli.containers.base import Reader
from lastcli.containers.container import Container
from lastcli.containers.inputs import is_unicode
from lastcli.containers.tree import arranged

if TYPE_CHECKING:
    from lastcli.containers.jobs import Job

__all__ = ["CONTAINER"]


def _begins(name: str, start: bytes, size: int) -> bool:
    """A map of at most 15, 2¹⁶ - 1 or 2³² - 1 entries; other formats can begin with these bytes too."""
    return bool(start) and (start[0] & 0xF0 == 0x80 or start[0] in (0xDE, 0xDF))


def _open(path: Path, name: str | None) -> Reader:
    from lastcli.containers.msgpack.reader import MsgpackReader

    return MsgpackReader(path)


def _write(temp: Path, job: Job) -> None:
    from lastcli.containers.msgpack.writer import write_msgpack

    write_msgpack(temp, job)


def _native(value: Any) -> bool:
    if value is None or type(value) in (bool, float, complex, bytes):
        return True
    if type(value) is int:
        return -(2**63) <= value < 2**64
    if type(value) is str:
        return is_unicode(value)
    if type(value) is list:
        return all(_native(item) and type(item) is not dict for item in value)
    return type(value) is dict and not value


CONTAINER = Container(
    name="msgpack",
    title="flax msgpack",
    help="one file of nested names, as flax.serialization.to_bytes makes it",
    source="https://flax.readthedocs.io/en/latest/api_reference/flax.serialization.html",
    page="README.md",
    suffixes=(".msgpack",),
    begins=_begins,
    certain=False,
    open=_open,
    arrange=arranged,
    write=_write,
    native=_native,
    shows=("paths", "integers"),
    keeps_metadata=False,
)
