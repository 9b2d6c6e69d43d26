"""Readers of data: one module a format, this list of them, and which one reads what.

A new format is a module with a `READER` and a line here; `docs/data.md` has the table, `tests/evaluation/readers` holds
every entry to what all promise.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lastcli.containers.inputs import is_folder, shown
from lastcli.errors import InputError
from lastcli.evaluation.readers import arrow, csv, function, idx, lra, npy, npz, safetensors, text, ts
from lastcli.evaluation.readers.base import Found, Reader, Request, require_regular

__all__ = ["READERS", "read", "reader_of", "runs_code"]

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        npz.READER,
        arrow.DATASETS,  # before what else may lie in such a folder
        npy.READER,
        safetensors.READER,
        idx.READER,
        lra.READER,
        ts.READER,
        csv.READER,
        arrow.PARQUET,
        arrow.ARROW,
        text.READER,
        function.READER,
    )
}
"""By name; the order counts for folders that several could read."""


def read(request: Request) -> Found:
    """What a request finds.

    Raises:
        InputError: nothing is there, nothing reads it, or it is damaged; one sentence.
        UsageError: an optional library is missing, or a part or columns are named where there are none.
    """
    reader, request = reader_of(request)
    return reader.read(request)


def reader_of(request: Request) -> tuple[Reader, Request]:
    """Who reads it: by suffix, else by content; `FOLDER/train` may be the part `train` of `FOLDER`.

    Raises:
        InputError: nobody.
    """
    path = request.path
    if is_folder(path):
        for reader in READERS.values():
            if reader.folder is not None and reader.folder(path):
                return reader, request
        raise InputError(f"{request.where} is not a regular file, and no data is known in this folder ({_known()}).")
    named = _by_suffix(path)
    if _is_missing(path):
        if request.part is None and named is None and is_folder(path.parent):
            found = _of_folder(dataclasses.replace(request, path=path.parent, part=path.name))
            if found is not None:
                return found
        if named is None and function.names_function(path, request.part):
            return function.READER, request
    elif path.suffix == ".py" and function.names_function(path, request.part):
        return function.READER, request
    if named is not None:
        return named, request
    require_regular(path)
    return _by_content(request), request


def runs_code(path: Path, part: str | None) -> bool:
    """Whether reading `path:part` calls a function of the user's, as `reader_of` decides."""
    if not function.names_function(path, part):
        return False
    return path.suffix == ".py" or (_is_missing(path) and _by_suffix(path) is None)


def _of_folder(request: Request) -> tuple[Reader, Request] | None:
    """The reader of a folder that may hold the part asked for."""
    readers = [reader for reader in READERS.values() if reader.folder is not None and reader.folder(request.path)]
    return (readers[0], request) if readers and request.part and not _begins_hidden(request.part) else None


def _begins_hidden(part: str) -> bool:
    return part.startswith(".") or "." in part


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except (OSError, ValueError):  # no possible name: the reader says so
        return False


def _by_suffix(path: Path) -> Reader | None:
    name = path.name.lower()
    return next((reader for reader in READERS.values() if name.endswith(reader.suffixes)), None)


def _by_content(request: Request) -> Reader:
    with request.path.open("rb") as file:
        start = file.read(8)
    for reader in READERS.values():
        if start.startswith(reader.begins):
            return reader
    raise InputError(f"{request.where}: no reader knows data of this name and content; {_known()}.")


def _known() -> str:
    suffixes = [shown(suffix) for reader in READERS.values() for suffix in reader.suffixes[:1]]
    return f"data are {', '.join(suffixes)}, a folder of them, or module:function"
