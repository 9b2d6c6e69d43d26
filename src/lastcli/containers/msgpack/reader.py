"""Reading flax msgpack (`flax.serialization.to_bytes`): the file is walked once, tensors are skipped and read later.

Flax stores an array as extension type 1 and a NumPy scalar as type 3, both with the payload
msgpack((shape, dtype name, bytes)), a Python complex as type 2, and an array of more than 2³⁰ bytes as a map
`{"__msgpack_chunked_array__": True, "shape": {"0": ...}, "chunks": {"0": flat array, ...}}`. The walk is written here,
and not left to the msgpack library, because it must not load what it passes, and must check every length against the
file before memory is asked for; flax's own `msgpack_restore` loads everything at once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.base import Reader, TensorInfo
from lastcli.containers.dtypes import ITEMSIZE, dtype_of, safe_nbytes
from lastcli.containers.inputs import RandomAccess, shown
from lastcli.containers.optimizer import drop_optimizer
from lastcli.containers.sidecar import sidecar_metadata
from lastcli.containers.structure import merged, take_metadata
from lastcli.containers.tree import flatten
from lastcli.errors import InputError

__all__ = ["CHUNK_KEY", "Leaf", "MsgpackReader"]

CHUNK_KEY = "__msgpack_chunked_array__"

_MAX_DEPTH = 100
_MAX_NODES = 5_000_000
_MAX_TEXT = 2**26
_WINDOW = 2**16
_EXT_FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}


@dataclass(frozen=True)
class Leaf:
    """A tensor in the file.

    Attributes:
        pieces: (offset, bytes) of its parts, one unless the array is chunked.
        scalar: whether it was a NumPy scalar (extension type 3).
    """

    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[tuple[int, int], ...]
    scalar: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of all pieces."""
        return sum(count for _, count in self.pieces)


class MsgpackReader(Reader):
    """One flax msgpack file: a bare parameter tree, variable collections, or a whole TrainState."""

    def __init__(self, path: Path) -> None:
        """Open and walk the structure.

        Raises:
            InputError: the file is missing, damaged, or holds what flax does not write.
        """
        self._file = RandomAccess(path)
        where = shown(path, 1000)
        try:
            tree = _Walk(self._file).document()
            dropped = drop_optimizer(tree, lambda leaf: _info("", leaf) if isinstance(leaf, Leaf) else None)
            flat = flatten(tree, lambda leaf: isinstance(leaf, Leaf), where)
            metadata, more = take_metadata(sidecar_metadata(path, "msgpack"), where)
            tensors = {name: _info(name, leaf) for name, leaf in flat.leaves.items()}
            super().__init__(path, "msgpack", tensors, metadata, merged(flat.extras, more), dropped)
        except BaseException:
            self._file.close()
            raise
        self._leaves: dict[str, Leaf] = flat.leaves

    @property
    def scalars(self) -> frozenset[str]:
        """Names of the tensors that were NumPy scalars, which a rewritten file keeps as such."""
        return frozenset(name for name, leaf in self._leaves.items() if leaf.scalar)

    def load(self, name: str) -> np.ndarray:
        """See `Reader.load`."""
        leaf = self._leaves[name]
        array = np.empty(leaf.shape, dtype_of(leaf.dtype))
        flat = array.reshape(-1).view(np.uint8).data
        done = 0
        for offset, count in leaf.pieces:
            self._file.read_into(flat[done : done + count], offset, f"tensor '{shown(name)}'")
            done += count
        return array

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _info(name: str, leaf: Leaf) -> TensorInfo:
    return TensorInfo(name, leaf.shape, leaf.dtype, leaf.nbytes)


class _Walk:
    """A recursive descent over the msgpack types, reading through a small window."""

    def __init__(self, file: RandomAccess) -> None:
        self._file = file
        self._where = shown(file.path, 1000)
        self._position = 0
        self._window = b""
        self._window_start = 0
        self._nodes = 0

    def document(self) -> dict[str, Any]:
        """The whole file as a tree.

        Raises:
            InputError: not one msgpack map.
        """
        if self._file.size == 0:
            raise InputError(f"{self._where} is empty; copy it again.")
        tree = self._value((), 0)
        if not isinstance(tree, dict):
            raise InputError(f"{self._where} is not a flax msgpack checkpoint: its top level is not a map of names.")
        if self._position != self._file.size:
            extra = self._file.size - self._position
            raise InputError(f"{self._where} has {extra:,} bytes after its end; the file is damaged.")
        return tree

    def _left(self) -> int:
        return self._file.size - self._position

    def _take(self, count: int) -> bytes:
        if count > self._left():
            raise InputError(f"{self._where} ends in the middle of a value; the file is cut short, copy it again.")
        start = self._position - self._window_start
        if start < 0 or start + count > len(self._window):
            self._window_start = self._position
            self._window = self._file.read(self._position, min(max(count, _WINDOW), self._left()), "its structure")
            start = 0
        self._position += count
        return self._window[start : start + count]

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _text(self, count: int, path: tuple[str, ...]) -> str:
        try:
            return self._take(self._short(count, path)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self._at(path)}: text is not UTF-8; the file is damaged.") from error

    def _short(self, count: int, path: tuple[str, ...]) -> int:
        if _MAX_TEXT < count <= self._left():
            raise InputError(f"{self._at(path)}: text or bytes of {count:,} bytes are over the limit of {_MAX_TEXT:,}.")
        return count

    def _at(self, path: tuple[str, ...]) -> str:
        return f"{self._where}: '{shown('/'.join(path))}'" if path else self._where

    def _value(self, path: tuple[str, ...], depth: int) -> Any:
        self._nodes += 1
        if depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise InputError(f"{self._where} is nested too deep or has too many values to be a checkpoint.")
        code = self._take(1)[0]
        if code <= 0x7F:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code <= 0x8F:
            return self._map(code & 0x0F, path, depth)
        if code <= 0x9F:
            return self._list(code & 0x0F, path, depth)
        if code <= 0xBF:
            return self._text(code & 0x1F, path)
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        if code in (0xD9, 0xDA, 0xDB):
            return self._text(self._number({0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}[code]), path)
        if code in (0xC4, 0xC5, 0xC6):
            return self._take(self._short(self._number({0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}[code]), path))
        if code in (0xDC, 0xDD):
            return self._list(self._number({0xDC: ">H", 0xDD: ">I"}[code]), path, depth)
        if code in (0xDE, 0xDF):
            return self._map(self._number({0xDE: ">H", 0xDF: ">I"}[code]), path, depth)
        if code in _EXT_FIXED:
            return self._extension(_EXT_FIXED[code], path)
        if code in (0xC7, 0xC8, 0xC9):
            return self._extension(self._number({0xC7: ">B", 0xC8: ">H", 0xC9: ">I"}[code]), path)
        raise InputError(f"{self._at(path)}: byte 0x{code:02x} is no msgpack type; the file is damaged.")

    def _map(self, count: int, path: tuple[str, ...], depth: int) -> Any:
        if 2 * count > self._left():
            raise InputError(
                f"{self._at(path)} declares {count:,} entries, more than the file can hold; it is cut short."
            )
        result: dict[Any, Any] = {}
        for _ in range(count):
            key = self._value(path, depth + 1)
            if type(key) not in (str, int):
                raise InputError(
                    f"{self._at(path)} has a key that is neither text nor a whole number ({shown(key)}); the file is "
                    "damaged."
                )
            if key in result:
                raise InputError(f"{self._at(path)} has the key '{shown(key)}' twice; the file is damaged.")
            result[key] = self._value((*path, str(key)), depth + 1)
        return self._unchunk(result, path) if CHUNK_KEY in result else result

    def _list(self, count: int, path: tuple[str, ...], depth: int) -> list[Any]:
        if count > self._left():
            raise InputError(
                f"{self._at(path)} declares {count:,} items, more than the file can hold; it is cut short."
            )
        return [self._value((*path, str(index)), depth + 1) for index in range(count)]

    def _extension(self, count: int, path: tuple[str, ...]) -> Any:
        kind = self._number(">b")
        end = self._position + count
        if count > self._left():
            raise InputError(
                f"{self._at(path)}: the tensor needs {count:,} bytes, more than the file has; it is cut short."
            )
        if kind in (1, 3):
            value: Any = self._array(end, path, scalar=kind == 3)
        elif kind == 2:
            parts = self._value(path, _MAX_DEPTH - 2)
            if not isinstance(parts, list) or len(parts) != 2 or not all(type(part) is float for part in parts):
                raise InputError(f"{self._at(path)}: a complex number must be two floats; the file is damaged.")
            value = complex(*parts)
        else:
            raise InputError(f"{self._at(path)} has msgpack extension type {kind}, which flax does not write.")
        if self._position != end:
            raise InputError(f"{self._at(path)}: the tensor's length does not fit its contents; the file is damaged.")
        return value

    def _array(self, end: int, path: tuple[str, ...], scalar: bool) -> Leaf:
        """The payload (shape, dtype name, bytes), its bytes skipped."""
        at = self._at(path)
        if self._take(1) != b"\x93":
            raise InputError(f"{at}: an array must be stored as shape, dtype and bytes; the file is damaged.")
        shape, dtype = self._value(path, _MAX_DEPTH - 2), self._value(path, _MAX_DEPTH - 2)
        if isinstance(dtype, bytes):
            dtype = dtype.decode("utf-8", "replace")
        if not isinstance(dtype, str) or dtype not in ITEMSIZE:
            raise InputError(f"{at} has dtype {shown(dtype)!r}, which last does not support; convert it first.")
        if not isinstance(shape, list) or not all(type(axis) is int and axis >= 0 for axis in shape):
            raise InputError(f"{at} has a shape that is not whole numbers; the file is damaged.")
        nbytes = safe_nbytes(tuple(shape), dtype)
        if nbytes is None:
            raise InputError(f"{at} declares the impossible shape {shown(shape)}; the file is damaged.")
        width = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}.get(code := self._take(1)[0], 0)
        if width == 0 and not 0xA0 <= code <= 0xBF:
            raise InputError(f"{at}: the array's contents are not bytes; the file is damaged.")
        count = int.from_bytes(self._take(width), "big") if width else code & 0x1F
        if count != nbytes or self._position + count > end:
            raise InputError(
                f"{at} of shape {shown(tuple(shape))} and dtype {dtype} needs {nbytes:,} bytes but has {count:,}; "
                "the file is damaged."
            )
        piece = (self._position, count)
        self._position += count
        return Leaf(tuple(shape), dtype, (piece,), scalar)

    def _unchunk(self, node: dict[str, Any], path: tuple[str, ...]) -> Leaf:
        """One leaf of a chunked array, every claim checked against the chunks."""
        axes, chunks = _sequence(node.get("shape")), _sequence(node.get("chunks"))
        sound = set(node) == {CHUNK_KEY, "shape", "chunks"} and node[CHUNK_KEY] is True and axes is not None and chunks
        if (
            not sound
            or not all(type(axis) is int and axis >= 0 for axis in axes or [])
            or not all(isinstance(chunk, Leaf) and len(chunk.shape) == 1 for chunk in chunks or [])
            or len({chunk.dtype for chunk in chunks or []}) != 1
        ):
            raise InputError(f"{self._at(path)} is not a sound chunked array; the file is damaged.")
        shape, leaves = tuple(axes or ()), list(chunks or [])
        sizes = [leaf.shape[0] for leaf in leaves]
        if len(set(sizes[:-1])) > 1 or not 0 < sizes[-1] <= sizes[0]:
            # flax cuts an array into equal pieces and a last one that is no longer
            raise InputError(f"{self._at(path)} has chunks of unequal sizes; the file is damaged.")
        nbytes = safe_nbytes(shape, leaves[0].dtype)
        pieces = tuple(piece for leaf in leaves for piece in leaf.pieces)
        if nbytes is None or nbytes != sum(count for _, count in pieces):
            raise InputError(f"{self._at(path)}: the chunks do not fill the shape {shown(shape)}; the file is damaged.")
        return Leaf(shape, leaves[0].dtype, pieces)


def _sequence(node: Any) -> list[Any] | None:
    """The values of `{"0": a, "1": b, ...}`, or None where it is something else."""
    if not isinstance(node, dict) or set(node) != {str(index) for index in range(len(node))}:
        return None
    return [node[str(index)] for index in range(len(node))]
