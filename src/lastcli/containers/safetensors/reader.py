"""Reading safetensors: the header is parsed and checked here, the bytes are read by position, one tensor at a time.

Not through the safetensors library (0.8), which maps the file, so that one cut short while it is open ends the process
with SIGBUS; which takes one of two tensors of the same name without a word; and whose NumPy side has no float8.

Layout (safetensors format, version 1): 8 bytes little-endian header length n, n bytes of JSON
`{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {text: text}}`, then the tensors without
holes or overlaps to the end of the file. Everything is checked before memory is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lastcli.containers.base import Reader, TensorInfo
from lastcli.containers.dtypes import SAFETENSORS_CODES, dtype_of, safe_nbytes
from lastcli.containers.inputs import RandomAccess, shown
from lastcli.containers.structure import take_metadata
from lastcli.errors import InputError
from lastcli.mappings import parse_json

__all__ = ["COMPARED", "MAX_HEADER", "Header", "SafetensorsReader", "Stretch", "looks_like_safetensors", "read_header"]

MAX_HEADER = 100_000_000
"""The longest header, as in the reference implementation."""

COMPARED = 2**18
"""Bytes of two files that are compared at once: both pieces fit the cache of one processor core."""

_NAME_OF_CODE = {code: name for name, code in SAFETENSORS_CODES.items()}


class Header(NamedTuple):
    """A checked header.

    Attributes:
        tensors: what the file holds, in the order of the header.
        offsets: where each tensor's bytes begin in the file.
        metadata: the `__metadata__` of the file.
    """

    tensors: dict[str, TensorInfo]
    offsets: dict[str, int]
    metadata: dict[str, str]


class Stretch(Iterator[memoryview]):
    """The bytes of a tensor of an open file, in order, in pieces.

    Args:
        file: the file.
        offset: where they begin in it.
        count: how many they are.
        what: whose they are, for messages.
    """

    def __init__(self, file: RandomAccess, offset: int, count: int, what: str) -> None:
        self._file, self._offset, self._count, self._what = file, offset, count, what
        self._pieces = file.read_pieces(offset, count, what)

    def __next__(self) -> memoryview:
        return next(self._pieces)

    def same(self, other: Stretch) -> bool:
        """Whether all bytes are those of another stretch, whatever was iterated over; several threads may ask.

        Raises:
            InputError: one of the files ends before.
        """
        if self._count != other._count:
            return False
        mine, theirs = bytearray(min(COMPARED, self._count)), bytearray(min(COMPARED, self._count))
        for start in range(0, self._count, COMPARED):
            left = self._count - start
            if left < len(mine):
                mine, theirs = bytearray(left), bytearray(left)
            self._file.read_into(memoryview(mine), self._offset + start, self._what)
            other._file.read_into(memoryview(theirs), other._offset + start, other._what)
            # of two arrays of bytes one call in C looks at the memory; memoryviews would be compared item by item
            if mine != theirs:
                return False
        return True


class SafetensorsReader(Reader):
    """One safetensors file."""

    in_pieces = True

    def __init__(self, path: Path) -> None:
        """Open and check the header.

        Raises:
            InputError: the file is missing, damaged or says something impossible.
        """
        self._file = RandomAccess(path)
        try:
            header = read_header(self._file)
            metadata, extras = take_metadata(header.metadata, shown(path, 1000))
            super().__init__(path, "safetensors", header.tensors, metadata, extras)
        except BaseException:
            self._file.close()
            raise
        self._offsets = header.offsets

    def load(self, name: str) -> np.ndarray:
        """See `Reader.load`."""
        info = self.tensors[name]
        what = f"tensor '{shown(name)}'"
        return self._file.read_array(self._offsets[name], info.shape, dtype_of(info.dtype), what)

    def load_pieces(self, name: str) -> Stretch:
        """See `Reader.load_pieces`."""
        return Stretch(self._file, self._offsets[name], self.tensors[name].nbytes, f"tensor '{shown(name)}'")

    def outline(self) -> list[bytes | str]:
        """The file up to its first tensor as bytes, then the tensors' names in the order of their bytes."""
        ordered = sorted(self.tensors, key=lambda name: (self._offsets[name], self.tensors[name].nbytes, name))
        length = 8 + int.from_bytes(self._file.read(0, 8, "the header length"), "little")
        return [self._file.read(0, length, "the header"), *ordered]

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def looks_like_safetensors(start: bytes, size: int) -> bool:
    """Whether the first nine bytes can begin a safetensors file of that size."""
    return len(start) >= 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= min(MAX_HEADER, size - 8)


def read_header(file: RandomAccess) -> Header:
    """Parse and check the header of an open file.

    Raises:
        InputError: names the file and, where one is at fault, the tensor.
    """
    where = shown(file.path, 1000)
    if file.size < 8:
        raise InputError(f"{where} has {file.size} bytes, too few for a safetensors file; copy it again.")
    length = int.from_bytes(file.read(0, 8, "the header length"), "little")
    if length > MAX_HEADER:
        raise InputError(
            f"{where} declares a header of {length:,} bytes, over the limit of {MAX_HEADER:,}; it is damaged."
        )
    if length > file.size - 8:
        raise InputError(f"{where} ends inside its header; the file is cut short, copy it again.")
    raw = file.read(8, length, "the header")
    if not raw.startswith(b"{"):
        raise InputError(f"{where}: the safetensors header does not begin with '{{'; the file is damaged.")
    # what begins with a brace is an object, or no JSON
    document = parse_json(raw, f"{where}: the safetensors header")
    metadata = _metadata(document.pop("__metadata__", None), where)
    spans = {name: _entry(name, entry, where) for name, entry in document.items()}
    _check_layout(spans, file.size - 8 - length, where)
    tensors = {name: info for name, (info, _) in spans.items()}
    offsets = {name: 8 + length + begin for name, (_, begin) in spans.items()}
    return Header(tensors, offsets, metadata)


def _metadata(value: Any, where: str) -> dict[str, str]:
    if value is None:
        # the reference implementation writes and reads it where there are none
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InputError(f"{where}: __metadata__ must map text to text; the file is damaged.")
    return value


def _entry(name: str, entry: Any, where: str) -> tuple[TensorInfo, int]:
    """One tensor's description and its first byte within the data."""
    tensor = f"{where}: tensor '{shown(name)}'"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{tensor} must have dtype, shape and data_offsets and nothing else; the file is damaged.")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _NAME_OF_CODE:
        raise InputError(f"{tensor} has dtype {shown(code)}, which last does not support; convert it first.")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise InputError(f"{tensor} has a shape or data_offsets that are not whole numbers; the file is damaged.")
    nbytes = safe_nbytes(tuple(shape), _NAME_OF_CODE[code])
    if nbytes is None:
        raise InputError(f"{tensor} declares the impossible shape {shown(shape)}; the file is damaged.")
    begin, end = offsets
    if end - begin != nbytes:
        raise InputError(
            f"{tensor} of shape {shown(shape)} and dtype {code} needs {nbytes:,} bytes, but its data_offsets give "
            f"{end - begin:,}; the file is damaged."
        )
    return TensorInfo(name, tuple(shape), _NAME_OF_CODE[code], nbytes), begin


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(spans: dict[str, tuple[TensorInfo, int]], size: int, where: str) -> None:
    """The tensors must fill the data exactly, as the format demands: no hole, no overlap, no trailing bytes."""
    end = 0
    for name, (info, begin) in sorted(spans.items(), key=lambda item: (item[1][1], item[1][0].nbytes)):
        if begin != end:
            fault = "overlaps the tensor before it" if begin < end else "leaves a hole before it"
            raise InputError(f"{where}: tensor '{shown(name)}' {fault}; the file is damaged.")
        end = begin + info.nbytes
        if end > size:
            raise InputError(f"{where} ends inside tensor '{shown(name)}'; the file is cut short, copy it again.")
    if end != size:
        raise InputError(f"{where} has {size - end:,} bytes after its last tensor; the file is damaged.")
