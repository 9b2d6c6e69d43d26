"""Which container a path holds, by its content; the suffix decides only where the content says nothing."""

from __future__ import annotations

from pathlib import Path

from lastcli.containers.inputs import RandomAccess, is_folder, shown
from lastcli.containers.orbax.layout import CHECKPOINT_FILE, TEMPORARY, TREE_FILE
from lastcli.containers.safetensors.reader import looks_like_safetensors
from lastcli.containers.safetensors.sharded import INDEX_SUFFIX
from lastcli.errors import InputError, OutputError

__all__ = ["SUFFIXES", "kind_for", "kind_of"]

SUFFIXES = {".safetensors": "safetensors", ".msgpack": "msgpack", ".pt": "torch", ".pth": "torch", ".ckpt": "torch"}
"""Container by suffix."""

_ORBAX_MARKS = (TREE_FILE, CHECKPOINT_FILE, "manifest.ocdbt")

_FOREIGN = (
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"ustar", "a tar archive; unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
)


def kind_for(path: Path) -> str:
    """The container to write for an output path, by its suffix; a name without a suffix is an orbax folder.

    Raises:
        OutputError: another suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if suffix == "" or is_folder(path) or suffix[1:].isdecimal():
        return "orbax"
    raise OutputError(
        f"{shown(path, 1000)}: no container is known for '{shown(suffix)}'; use .safetensors, .msgpack, .pt, .pth, "
        ".ckpt or a name without a suffix (orbax folder)."
    )


def kind_of(path: Path) -> str:
    """The container that is there.

    Raises:
        InputError: nothing is there, or nothing that is known.
    """
    where = shown(path, 1000)
    if is_folder(path):
        return _kind_of_folder(path)
    if path.name.endswith(INDEX_SUFFIX):
        return "safetensors"
    file = RandomAccess(path)
    try:
        start, size = file.read(0, min(file.size, 512), "its beginning"), file.size
    finally:
        file.close()
    if looks_like_safetensors(start, size):
        return "safetensors"
    if start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        return "torch"
    for magic, name in _FOREIGN:
        if start.startswith(magic):
            raise InputError(f"{where} is {name}; last reads safetensors, flax msgpack, orbax and torch checkpoints.")
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if start and (start[0] & 0xF0 == 0x80 or start[0] in (0xDE, 0xDF)):
        return "msgpack"
    raise InputError(f"{where} is no checkpoint that last knows; it reads safetensors, flax msgpack, orbax and torch.")


def _kind_of_folder(path: Path) -> str:
    where = shown(path, 1000)
    try:
        names = [item.name for item in path.iterdir()]
    except OSError as error:
        raise InputError(f"{where}: the folder cannot be read ({error.strerror}).") from error
    if any(name.endswith((INDEX_SUFFIX, ".safetensors")) for name in names):
        return "safetensors"
    if any(TEMPORARY in name for name in (path.name, *names)) or any(mark in names for mark in _ORBAX_MARKS):
        return "orbax"
    below = [path / name for name in names if (path / name).is_dir()]
    if any((folder / mark).is_file() for folder in below for mark in _ORBAX_MARKS):
        return "orbax"
    raise InputError(f"{where} is a folder without a checkpoint: no safetensors files and no orbax metadata.")
