"""Writing flax msgpack, one tensor at a time: what `flax.serialization.from_bytes` and `msgpack_restore` read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import msgpack

from lastcli.containers.base import TensorInfo, TensorSource
from lastcli.containers.digests import raw
from lastcli.containers.dtypes import dtype_of
from lastcli.containers.inputs import shown
from lastcli.containers.jobs import Job
from lastcli.containers.msgpack.reader import CHUNK_KEY, MsgpackReader
from lastcli.errors import OutputError

__all__ = ["MAX_CHUNK", "write_msgpack"]

MAX_CHUNK = 2**30
"""The largest array, in bytes, that flax stores in one piece."""


def write_msgpack(temp: Path, job: Job) -> None:
    """Write the tree of the names.

    Raises:
        OutputError: the names make no tree, or flax cannot hold one of them.
    """
    tree = job.tree()
    template = job.template
    scalars = template.scalars if isinstance(template, MsgpackReader) else frozenset()
    with temp.open("xb") as file:
        _Emitter(file, job, scalars).value(tree)


class _Emitter:
    def __init__(self, file: BinaryIO, job: Job, scalars: frozenset[str]) -> None:
        self._file, self._job, self._scalars = file, job, scalars
        self._packer = msgpack.Packer(use_bin_type=True, strict_types=True)

    def value(self, value: Any) -> None:
        """Write one node of the tree."""
        if isinstance(value, TensorSource):
            self._tensor(value)
        elif isinstance(value, dict):
            self._file.write(self._packer.pack_map_header(len(value)))
            for key, item in value.items():
                self._key(key)
                self.value(item)
        elif isinstance(value, list):
            self._file.write(self._packer.pack_array_header(len(value)))
            for item in value:
                self.value(item)
        elif isinstance(value, complex):
            self._file.write(self._packer.pack_ext_type(2, self._packer.pack([value.real, value.imag])))
        else:
            self._file.write(self._packer.pack(value))

    def _key(self, key: str | int) -> None:
        try:
            self._file.write(self._packer.pack(key))
        except UnicodeEncodeError as error:
            raise OutputError(
                f"{self._job.where}: the name '{shown(key)}' is not valid Unicode text; rename it."
            ) from error

    def _tensor(self, source: TensorSource) -> None:
        info = source.info
        data = raw(self._job.load(source))
        if info.nbytes <= MAX_CHUNK:
            self._array(info.shape, info.dtype, data, 3 if info.name in self._scalars and info.shape == () else 1)
            return
        step = MAX_CHUNK // dtype_of(info.dtype).itemsize * dtype_of(info.dtype).itemsize
        self._chunks(info, [data[start : start + step] for start in range(0, info.nbytes, step)])

    def _chunks(self, info: TensorInfo, chunks: list[memoryview]) -> None:
        write, pack = self._file.write, self._packer
        write(pack.pack_map_header(3) + pack.pack(CHUNK_KEY) + pack.pack(True))
        write(pack.pack("shape") + pack.pack({str(index): axis for index, axis in enumerate(info.shape)}))
        write(pack.pack("chunks") + pack.pack_map_header(len(chunks)))
        itemsize = dtype_of(info.dtype).itemsize
        for index, chunk in enumerate(chunks):
            write(pack.pack(str(index)))
            self._array((chunk.nbytes // itemsize,), info.dtype, chunk, 1)

    def _array(self, shape: tuple[int, ...], dtype: str, data: memoryview, code: int) -> None:
        head = b"\x93" + self._packer.pack(list(shape)) + self._packer.pack(dtype) + _bin_header(data.nbytes)
        self._file.write(_ext_header(code, len(head) + data.nbytes))
        self._file.write(head)
        self._file.write(data)


def _bin_header(count: int) -> bytes:
    width = _width(count)
    return bytes([{1: 0xC4, 2: 0xC5, 4: 0xC6}[width]]) + count.to_bytes(width, "big")


def _ext_header(code: int, count: int) -> bytes:
    if count in (1, 2, 4, 8, 16):
        return bytes([0xD4 + count.bit_length() - 1, code])
    width = _width(count)
    return bytes([{1: 0xC7, 2: 0xC8, 4: 0xC9}[width]]) + count.to_bytes(width, "big") + bytes([code])


def _width(count: int) -> int:
    """Bytes of the number that says a length; no array in one piece needs more than four."""
    return 1 if count < 2**8 else 2 if count < 2**16 else 4
