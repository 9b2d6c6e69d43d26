"""Pickles, read inertly: nothing that one names is looked up, built or run. They are never written.

* `machine` follows the operations and makes `values`; `limits` counts what each costs before; `stream` is the file.
* `meaning` says which records are tensors and plain containers: `arrays` those of NumPy, JAX and joblib, `tensors`
  those of PyTorch. Everything else stays a record: `foreign` names it in one note.
* `settings` finds the settings of a run among them.
* `reader` is the container of plain pickles and joblib files, `compressed` unpacks them; torch files have their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lastcli.containers.base import Reader
from lastcli.containers.container import Container, IsModel

__all__ = ["CONTAINER"]

_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_SUFFIXES = (".pkl", ".pickle", ".joblib")
_PACKED_SUFFIXES = ("", ".gz", ".z", ".bz2", ".xz", ".lzma", ".lz4")


def _begins(name: str, start: bytes, size: int) -> bool:
    """A pickle of protocol 2 to 5, or by its name a compressed one."""
    if start[:1] == b"\x80" and start[1:2] in _PROTOCOLS:
        return True
    from lastcli.containers.pickle.compressed import is_compressed

    named = any(name.lower().endswith(suffix + packed) for suffix in _SUFFIXES for packed in _PACKED_SUFFIXES)
    return named and is_compressed(start)


def _open(path: Path, name: str | None) -> Reader:
    from lastcli.containers.pickle.reader import open_pickle

    return open_pickle(path, name)


def _open_known(path: Path, name: str | None, is_model: IsModel) -> Reader:
    from lastcli.containers.pickle.reader import open_pickle

    return open_pickle(path, name, is_model)


def _native(value: Any) -> bool:
    return False


CONTAINER = Container(
    name="pickle",
    title="pickle",
    help="one pickle of arrays by name, plain or as joblib writes it; read inertly, never written",
    source="https://docs.python.org/3/library/pickle.html",
    page="README.md",
    suffixes=_SUFFIXES,
    begins=_begins,
    open=_open,
    open_known=_open_known,
    write=None,
    native=_native,
    keeps_metadata=False,
    several_models=True,
)
