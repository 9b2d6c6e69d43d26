"""MNIST's idx files, plain or packed with gzip: images as sequences of pixels, with the labels' file beside them.

Format: http://yann.lecun.com/exdb/mnist: two zero bytes, the type, the number of axes, the axes as big-endian 32-bit
numbers, the values. Images (n, height, width) become (n, height·width, 1), row after row.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.errors import InputError
from lastcli.evaluation.readers.base import (
    SUSPICIOUS_BYTES,
    DataFile,
    Found,
    Reader,
    Request,
    first_line,
    require_regular,
)
from lastcli.evaluation.readers.stored import StoredArray

__all__ = ["READER", "read"]

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PARTS = {"train": "train", "test": "t10k"}
_DEFLATE_LIMIT = 1032


def read(request: Request) -> Found:
    """See `Reader.read`; plain files of images stay on disk."""
    request.refuse_columns("an idx file")
    path = _images(request)
    x = _array(path, flat=True)
    if len(x.shape) == 1:
        raise InputError(f"{path} holds labels; name the file of the images.")
    labels = _labels_beside(path)
    return Found(x, None if labels is None else np.asarray(_array(labels, flat=False)))


def _images(request: Request) -> Path:
    if not request.path.is_dir():
        request.refuse_part("an idx file")
        return request.path
    files = _image_files(request.path)
    if request.part is not None:
        start = _PARTS.get(request.part, request.part)
        files = [path for path in files if path.name.startswith(start)]
    if len({path.name.removesuffix(".gz") for path in files}) != 1:
        held = ", ".join(path.name for path in _image_files(request.path)[:8])
        raise InputError(
            f"{request.where} holds the images {held}; name one file, or {request.path.name}/train or /test."
        )
    return files[0]


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*-images*idx*-ubyte*") if path.name.endswith(("-ubyte", "-ubyte.gz")))


def _labels_beside(path: Path) -> Path | None:
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    plain = name.removesuffix(".gz")
    found = [path.with_name(name), path.with_name(plain), path.with_name(f"{plain}.gz")]
    return next((other for other in found if other.is_file() and other != path), None)


def _array(path: Path, *, flat: bool) -> Any:
    """The values; images as (n, pixels, 1)."""
    packed = path.name.lower().endswith(".gz")
    file = None if packed else DataFile(path)
    start = _begin(path) if file is None else file.read(0, min(file.size, 4 + 4 * 255), "its header")
    shape, dtype, offset = _header(path, start)
    declared = math.prod(shape) * dtype.itemsize
    images = flat and len(shape) == 3 and "images" in path.name
    shown_shape = (shape[0], shape[1] * shape[2], 1) if images else shape
    if file is None:
        return _unpacked(path, offset, declared).view(dtype).reshape(shown_shape).astype(dtype.newbyteorder("="))
    if declared != file.size - offset:
        raise InputError(_wrong_size(path, declared, shape, file.size - offset))
    return StoredArray(file, offset, shown_shape, dtype, "the values")


def _header(path: Path, start: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _TYPES or not start[3]:
        raise InputError(f"{path} is no idx file: its first bytes are not those of one.")
    offset = 4 + 4 * start[3]
    if len(start) < offset:
        raise InputError(f"{path} ends inside its header; the file is cut short, copy it again.")
    shape = tuple(int.from_bytes(start[4 + 4 * i : 8 + 4 * i], "big") for i in range(start[3]))
    if 0 in shape:
        raise InputError(f"{path} is an empty split: its shape is {shape}.")
    return shape, np.dtype(_TYPES[start[2]]), offset


def _begin(path: Path) -> bytes:
    require_regular(path)
    with _unpacking(path), gzip.open(path) as stream:
        return stream.read(4 + 4 * 255)


def _unpacked(path: Path, offset: int, declared: int) -> np.ndarray:
    """The bytes behind the header; what is declared is compared with the file before memory is asked for."""
    if declared > SUSPICIOUS_BYTES and declared > _DEFLATE_LIMIT * path.stat().st_size:
        raise InputError(f"{path}: declares {declared:,} bytes, which so small a file cannot hold; it is damaged.")
    with _unpacking(path), gzip.open(path) as stream:
        stream.read(offset)
        data = stream.read(declared + 1)
    if len(data) != declared:
        raise InputError(_wrong_size(path, declared, (), len(data)))
    return np.frombuffer(bytearray(data), np.uint8)


@contextlib.contextmanager
def _unpacking(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip data ({first_line(error)}).") from error


def _wrong_size(path: Path, declared: int, shape: tuple[int, ...], held: int) -> str:
    return (
        f"{path}: its header declares {declared:,} bytes{f' of shape {shape}' if shape else ''}, but the file holds "
        f"{'more' if held > declared else f'{held:,}'}; the file is damaged."
    )


READER = Reader(
    "idx",
    read,
    suffixes=("-ubyte", "-ubyte.gz", ".idx", ".idx.gz"),
    begins=tuple(bytes([0, 0, kind]) for kind in _TYPES),
    folder=lambda path: bool(_image_files(path)),
    parts="train-images-…, t10k-images-…",
)
