"""equinox files, as `equinox.tree_serialise_leaves` writes them: arrays one after the other, without names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lastcli.containers.base import Reader, TensorInfo, TensorSource
from lastcli.containers.container import Container

if TYPE_CHECKING:
    from lastcli.containers.jobs import Job

__all__ = ["CONTAINER"]


def _begins(name: str, start: bytes, size: int) -> bool:
    """Arrays in NumPy's format, more than one of them or under the name; or a line of text before the first."""
    from lastcli.containers.equinox.npy import MAGIC, end_of_first

    if start.startswith(MAGIC):
        return name.endswith(".eqx") or end_of_first(start, size) is not None
    line, _, rest = start.partition(b"\n")
    return rest.startswith(MAGIC) and line.lstrip().startswith(b"{")


def _open(path: Path, name: str | None) -> Reader:
    from lastcli.containers.equinox.reader import EquinoxReader

    return EquinoxReader(path)


def _open_like(path: Path, like: Sequence[TensorInfo]) -> Reader:
    from lastcli.containers.equinox.reader import EquinoxReader

    return EquinoxReader(path, like=like)


def _reopen(path: Path, job: Job) -> Reader:
    from lastcli.containers.equinox.reader import EquinoxReader
    from lastcli.containers.structure import of

    return EquinoxReader(path, form=of(job.extras)["equinox"])


def _arrange(sources: tuple[TensorSource, ...], extras: dict[str, Any]) -> tuple[tuple[TensorSource, ...], Any]:
    from lastcli.containers.equinox.writer import arranged

    return arranged(sources, extras)


def _write(temp: Path, job: Job) -> None:
    from lastcli.containers.equinox.writer import write_equinox

    write_equinox(temp, job)


def _native(value: Any) -> bool:
    from lastcli.containers.equinox.npy import is_number

    return is_number(value)


CONTAINER = Container(
    name="equinox",
    title="equinox",
    help="one file of arrays in the order of a module's leaves, as equinox.tree_serialise_leaves makes it",
    source="https://docs.kidger.site/equinox/api/serialisation/",
    page="README.md",
    suffixes=(".eqx",),
    begins=_begins,
    open=_open,
    open_like=_open_like,
    arrange=_arrange,
    reopen=_reopen,
    write=_write,
    native=_native,
    keeps_metadata=False,
)
