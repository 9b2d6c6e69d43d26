"""Every container there is, and which one a path holds or gets.

To add one: a folder here with a `CONTAINER` (see `container.Container`), and its name in `CONTAINERS`;
docs/development.md shows it whole. Everything else asks this table.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lastcli.containers.base import Reader, TensorInfo
from lastcli.containers.boxes import finish_left
from lastcli.containers.container import Container, IsModel
from lastcli.containers.folders import model_file
from lastcli.containers.inputs import RandomAccess, is_folder, shown
from lastcli.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from lastcli.containers.hashing import InputHash

__all__ = [
    "CONTAINERS",
    "container_for",
    "container_named",
    "container_of",
    "hashing_of",
    "kind_for",
    "kind_of",
    "open_reader",
]


def _container(name: str) -> Container:
    return importlib.import_module(f"lastcli.containers.{name}").CONTAINER


CONTAINERS: dict[str, Container] = {
    name: _container(name)
    for name in (
        "safetensors",
        "msgpack",
        "orbax",
        "equinox",
        "torch",
        "pickle",
    )
}
"""The containers by name, in the order in which a path's content is held against them."""

_FOREIGN = (
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
)


def container_named(name: str) -> Container:
    """The container of that name.

    Raises:
        UsageError: there is none; lists those there are.
    """
    if name not in CONTAINERS:
        raise UsageError(f"There is no container '{shown(name)}'; use {_listed(CONTAINERS, 'or')}.")
    return CONTAINERS[name]


def container_for(path: Path) -> Container:
    """The container to write for an output path, by its suffix; a name without a suffix is a folder.

    Raises:
        OutputError: another suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    found = _by_suffix(suffix)
    if found is not None:
        return found
    folder = next(container for container in CONTAINERS.values() if container.is_folder)
    if suffix == "" or is_folder(path) or suffix[1:].isdecimal():
        return folder
    written = (container for container in CONTAINERS.values() if container.write is not None)
    known = ", ".join(suffix for container in written for suffix in container.suffixes)
    raise OutputError(
        f"{shown(path, 1000)}: no container is known for '{shown(suffix)}'; use {known} or a name without a suffix "
        f"({folder.title} folder)."
    )


def container_of(path: Path) -> Container:
    """The container that is there: by its content, and by the suffix only where the content says nothing.

    Raises:
        InputError: nothing is there, or nothing that is known.
    """
    path = Path(path)
    if is_folder(path):
        return _of_folder(path)
    file = RandomAccess(path)
    try:
        start, size = file.read(0, min(file.size, 512), "its beginning"), file.size
    finally:
        file.close()
    known = _listed((container.title for container in CONTAINERS.values()), "and")
    certain = _first(lambda container: container.certain and container.begins(path.name, start, size))
    if certain is not None:
        return certain
    for at, magic, name in _FOREIGN:
        if start.startswith(magic, at):
            raise InputError(f"{shown(path, 1000)} is {name}; last reads {known} checkpoints.")
    found = _by_suffix(path.suffix.lower()) or _first(lambda container: container.begins(path.name, start, size))
    if found is None:
        raise InputError(f"{shown(path, 1000)} is no checkpoint that last knows; it reads {known}.")
    return found


def kind_for(path: Path) -> str:
    """The name of `container_for`.

    Raises:
        OutputError: a suffix that no container has.
    """
    return container_for(path).name


def kind_of(path: Path) -> str:
    """The name of `container_of`.

    Raises:
        InputError: nothing is there, or nothing that is known.
    """
    return container_of(path).name


def hashing_of(reader: Reader) -> InputHash:
    """The sha256 by which records name an open input, computed from now on."""
    from lastcli.containers.hashing import FileHash

    return container_named(reader.kind).hashing(reader) or FileHash(reader.path)


def open_reader(
    path: Path,
    *,
    name: str | None = None,
    like: Sequence[TensorInfo] | None = None,
    keep_others: bool = False,
    is_model: IsModel | None = None,
) -> Reader:
    """Open a checkpoint, whatever its container.

    Args:
        path: a file, a folder, the index of a sharded folder, or a folder with one file that is a checkpoint.
        name: which one of several models of a file; where the container itself does not tell them apart, it is kept
            in `Reader.asked` for whoever does.
        like: the leaves of the file in order, where it may be one without names; else it is not looked at.
        keep_others: read the other models that the container tells apart beside it; else they are left out.
        is_model: what tells a model from other tensors, where one file may hold several; else all tensors in one
            dictionary are taken for one.

    Raises:
        InputError: the checkpoint is missing, unfinished, damaged or of no known kind.
        UsageError: a file has several models and none, or one it has not, is named.
    """
    path = Path(path)
    finish_left(path, only=True)
    if is_folder(path) and _folder_container(path) is None:
        path = _model_file(path)
    container = container_of(path)
    if like is not None and container.open_like is not None:
        reader = container.open_like(path, like)
    elif is_model is not None and container.open_known is not None:
        reader = container.open_known(path, name, is_model)
    else:
        reader = container.open(path, name)
    if not container.several_models:
        reader.asked = name
    if not keep_others:
        for model, tensors in reader.others.items():
            reader.leave_model(model, tensors)
    return reader


def _of_folder(path: Path) -> Container:
    found = _folder_container(path)
    if found is None:
        file = _model_file(path)
        raise InputError(f"{shown(path, 1000)} is no checkpoint, but holds one: {shown(file.name)}.")
    return found


def _folder_container(path: Path) -> Container | None:
    """The container of which a folder is a checkpoint; None where it is one of none."""
    try:
        names = [item.name for item in path.iterdir()]
    except OSError as error:
        raise InputError(f"{shown(path, 1000)}: the folder cannot be read ({error.strerror}).") from error
    return _first(lambda container: container.folder is not None and container.folder.holds(path, names))


def _model_file(folder: Path) -> Path:
    """The one model file in a folder that is no checkpoint itself."""
    marks = " and ".join(f"no {other.folder.mark}" for other in CONTAINERS.values() if other.folder is not None)
    suffixes = {suffix for container in CONTAINERS.values() for suffix in container.suffixes}
    return model_file(folder, suffixes, lambda path: container_of(path).title, marks)


def _by_suffix(suffix: str) -> Container | None:
    return _first(lambda container: suffix in container.suffixes)


def _first(fits: Callable[[Container], bool]) -> Container | None:
    return next((container for container in CONTAINERS.values() if fits(container)), None)


def _listed(words: Iterable[str], last: str) -> str:
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end
