"""Compressed pickles (gzip, zlib, bzip2, xz), as joblib writes them: unpacked in memory, within a limit."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from lastcli.containers.inputs import RandomAccess, shown
from lastcli.errors import InputError

__all__ = ["is_compressed", "unpacked"]

_STEP = 2**20
_LARGEST = 2**30
# A checkpoint is numbers, which hardly shrink; a bomb is zeros.
_RATIO = 1_100
_LZMA_MEMORY = 2**28
_PACKED: dict[bytes, tuple[str, Callable[[], Any]]] = {
    b"\x1f\x8b": ("gzip", lambda: zlib.decompressobj(31)),
    b"\x78": ("zlib", zlib.decompressobj),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zXZ": ("xz", lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)),
    b"\x5d\x00\x00": ("lzma", lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)),
}
_OTHER = {b"\x04\x22\x4d\x18": "lz4", b"ZF": "an old joblib's zfile", b"\x28\xb5\x2f\xfd": "zstandard"}


def is_compressed(start: bytes) -> bool:
    """Whether a file begins like one that `unpacked` knows of."""
    return any(start.startswith(magic) for magic in (*_PACKED, *_OTHER))


def unpacked(file: RandomAccess) -> bytes:
    """The whole file, unpacked.

    Raises:
        InputError: it is damaged, packed in a way that is not read, or unpacks to far more than a checkpoint.
    """
    where = shown(file.path, 1000)
    start = file.read(0, min(file.size, 8), "its beginning")
    for magic, name in _OTHER.items():
        if start.startswith(magic):
            raise InputError(f"{where} is compressed ({name}); unpack it first.")
    name, make = next(item for magic, item in _PACKED.items() if start.startswith(magic))
    limit = min(_LARGEST, max(file.size * _RATIO, _STEP))
    pieces: list[bytes] = []
    total, at, decoder = 0, 0, make()
    try:
        while at < file.size or _holds_back(decoder):
            packed = b"" if _holds_back(decoder) else file.read(at, min(_STEP, file.size - at), "its bytes")
            at += len(packed)
            piece = decoder.decompress(getattr(decoder, "unconsumed_tail", b"") + packed, _STEP)
            pieces.append(piece)
            total += len(piece)
            if total > limit:
                raise InputError(f"{where} unpacks to more than {limit:,} bytes; it is hostile, or unpack it first.")
            if decoder.eof:
                break
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{where} cannot be unpacked ({name}: {shown(error)}); it is damaged.") from error
    if not decoder.eof:
        raise InputError(f"{where} ends inside its {name} stream; the file is cut short, copy it again.")
    return b"".join(pieces)


def _holds_back(decoder: Any) -> bool:
    """Whether it has taken bytes that it has not unpacked yet."""
    if hasattr(decoder, "unconsumed_tail"):
        return bool(decoder.unconsumed_tail)
    return not decoder.needs_input and not decoder.eof
