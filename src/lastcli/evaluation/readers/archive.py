"""Reading arrays from an `.npz` without trusting it.

An `.npz` is a zip of `.npy` members, and both layers declare sizes that need not be true: a few hundred kilobytes can
unpack to gigabytes, and a `.npy` header can declare terabytes. Every declared size is compared with the others before a
byte is unpacked, objects (pickles) are never loaded, and rows outside the wanted range are not kept.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from lastcli.errors import InputError
from lastcli.evaluation.readers.base import SUSPICIOUS_BYTES, SUSPICIOUS_RATIO, first_line, require_regular

__all__ = ["ArrayHeader", "Npz", "check_dtype", "read_array_header"]

CHUNK = 1 << 20
KINDS = "biuf"


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and dtype of one array as its header declares them, found consistent with the zip directory."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    data_start: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class Npz:
    """An open `.npz`. Use as a context manager.

    Raises:
        InputError: not a regular file, not a zip, or a member that is repeated, encrypted or packed in an unusual way.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open_regular(path)
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, EOFError, ValueError, OSError, NotImplementedError) as error:
            self._file.close()
            raise InputError(
                f"{path} is not a whole .npz file ({error}); write it again with numpy.savez_compressed."
            ) from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            key = info.filename.removesuffix(".npy")
            if key in self._members:
                self.close()
                raise InputError(f"{path} holds the array {key!r} twice; it is unclear which one is meant.")
            self._members[key] = info

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return tuple(self._members)

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def header(self, key: str) -> ArrayHeader:
        """The declared shape and dtype of an array, compared with the size the zip declares.

        Raises:
            InputError: the sizes contradict each other, or the array holds objects or is not numeric.
        """
        info = self._members[key]
        where = f"{self.path}, array {key!r}"
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{where}: encrypted or packed in a way NumPy does not write; save it again.")
        try:
            with self._zip.open(info) as stream:
                shape, fortran, dtype = read_array_header(stream)
                start = stream.tell()
        except (ValueError, SyntaxError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{where}: not a readable .npy header ({first_line(error)}).") from error
        check_dtype(dtype, where)
        declared = math.prod(shape) * dtype.itemsize
        if any(axis < 0 for axis in shape) or declared + start != info.file_size:
            raise InputError(
                f"{where}: its header declares {declared:,} bytes of shape {shape}, "
                f"but the file holds {max(info.file_size - start, 0):,}; the file is damaged."
            )
        if declared > SUSPICIOUS_BYTES and declared > SUSPICIOUS_RATIO * max(info.compress_size, 1):
            raise InputError(
                f"{where}: {info.compress_size:,} bytes would unpack to {declared:,}; "
                "if that is meant, store it unpacked with numpy.savez."
            )
        return ArrayHeader(key, shape, dtype, fortran, start)

    def read(self, header: ArrayHeader, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start..stop of an array, in native byte order; a scalar as it is.

        Raises:
            InputError: the packed bytes are damaged or cut short, or do not fit into memory.
        """
        try:
            return self._read(header, start, stop)
        except MemoryError as error:
            raise InputError(
                f"{self.path}, array {header.key!r} of shape {header.shape} does not fit into memory; "
                f"name a part of it, for example {self.path.name}:0:1000."
            ) from error
        except (EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{self.path}, array {header.key!r}: damaged bytes ({first_line(error)}).") from error

    def _read(self, header: ArrayHeader, start: int, stop: int | None) -> np.ndarray:
        rows = header.shape[0] if header.shape else 1
        first, last, _ = slice(start, stop).indices(rows)
        whole = header.fortran or not header.shape
        if whole:
            first, last = 0, rows
        row_bytes = header.row_bytes if header.shape else header.dtype.itemsize
        flat = bytearray(max(last - first, 0) * row_bytes)
        with self._zip.open(self._members[header.key]) as stream:
            _discard(stream, header.data_start + first * row_bytes)
            _fill(stream, flat)
        array: np.ndarray = np.frombuffer(flat, header.dtype)
        if header.fortran:
            array = array.reshape(header.shape[::-1]).T
            return np.ascontiguousarray(array[start:stop], dtype=header.dtype.newbyteorder("="))
        shape = (last - first, *header.shape[1:]) if header.shape else ()
        return array.reshape(shape).astype(header.dtype.newbyteorder("="), copy=False)

    def close(self) -> None:
        """Release the file."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> Npz:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_regular(path: Path) -> IO[bytes]:
    require_regular(path)
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}.") from error


def read_array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and dtype as a `.npy` declares them, read off its beginning.

    Raises:
        ValueError: no such header, as NumPy says it.
    """
    version = np.lib.format.read_magic(stream)
    try:
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
    except (SyntaxError, tokenize.TokenError) as error:  # NumPy reads the header's text as Python reads a literal
        raise ValueError(first_line(error)) from error
    raise ValueError(f"version {version} of the .npy format")


def check_dtype(dtype: np.dtype, where: str) -> None:
    """Real numbers only.

    Raises:
        InputError: objects (pickles), text, complex numbers, records.
    """
    if dtype.hasobject:
        raise InputError(f"{where} holds Python objects, which are never loaded; store plain numbers.")
    if dtype.kind not in KINDS or dtype.fields is not None or dtype.subdtype is not None:
        raise InputError(f"{where} has dtype {dtype}; real numbers are needed.")


def _discard(stream: IO[bytes], count: int) -> None:
    while count > 0:
        got = len(stream.read(min(count, CHUNK)))
        if got == 0:
            raise EOFError("cut short")
        count -= got


def _fill(stream: IO[bytes], target: bytearray) -> None:
    # the zip compares its checksum as the last byte of the member is read
    view = memoryview(target)
    position = 0
    while position < len(view):
        chunk = stream.read(min(len(view) - position, CHUNK))
        if not chunk:
            raise EOFError("cut short")
        view[position : position + len(chunk)] = chunk
        position += len(chunk)
