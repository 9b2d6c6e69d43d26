"""PyTorch files: read inertly and without PyTorch, written with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lastcli.containers.base import Reader
from lastcli.containers.container import Container, IsModel

if TYPE_CHECKING:
    from lastcli.containers.jobs import Job

__all__ = ["CONTAINER"]

# The number that the format before PyTorch 1.6 begins with, as any protocol pickles it.
_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def _begins(name: str, start: bytes, size: int) -> bool:
    """A zip archive, or the magic number of the format before PyTorch 1.6."""
    return start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and _MAGIC in start[:40])


def _open(path: Path, name: str | None) -> Reader:
    from lastcli.containers.torch.reader import open_torch

    return open_torch(path, name)


def _open_known(path: Path, name: str | None, is_model: IsModel) -> Reader:
    from lastcli.containers.torch.reader import open_torch

    return open_torch(path, name, is_model)


def _write(temp: Path, job: Job) -> None:
    from lastcli.containers.torch.writer import write_torch

    write_torch(temp, job)


def _native(value: Any) -> bool:
    return not (type(value) is dict and value and all(isinstance(key, str) for key in value))


CONTAINER = Container(
    name="torch",
    title="torch",
    help="one file of torch.save: a state_dict, alone or in a dictionary",
    source="https://docs.pytorch.org/docs/stable/notes/serialization.html",
    page="README.md",
    suffixes=(".pt", ".pth", ".ckpt"),
    begins=_begins,
    open=_open,
    open_known=_open_known,
    write=_write,
    native=_native,
    shows=("torch",),
    keeps_metadata=False,
    several_models=True,
)
