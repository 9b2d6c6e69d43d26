"""PyTorch files, read with the safe loader only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lastcli.containers.base import Reader
from lastcli.containers.container import Container, IsModel
from lastcli.containers.jobs import Job

__all__ = ["CONTAINER"]

_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")


def _begins(name: str, start: bytes, size: int) -> bool:
    """A zip archive, or a pickle of protocol 2 to 5 (the format before PyTorch 1.6)."""
    return start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[1:2] in _PROTOCOLS)


def _open(path: Path, name: str | None) -> Reader:
    from lastcli.containers.torch.reader import TorchReader

    return TorchReader(path, name)


def _open_known(path: Path, name: str | None, is_model: IsModel) -> Reader:
    from lastcli.containers.torch.reader import TorchReader

    return TorchReader(path, name, is_model)


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
