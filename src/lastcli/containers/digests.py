"""The sha256 of every tensor, kept in the metadata of everything `last` writes, and compared whenever one is read.

The digest is over the dtype's name, the shape and the bytes, so that a header that calls the same bytes something else
is found as well. A file of somebody else's has none and is read without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from lastcli.errors import InputError
from lastcli.mappings import parse_json

__all__ = ["DIGESTS_KEY", "Running", "digests_text", "fingerprint", "raw", "take_digests"]

DIGESTS_KEY = "last.digests"
"""The metadata key that holds, as JSON text, tensor name → sha256 in hexadecimal digits."""

_BLANK = "0" * 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EARLIER = re.compile(r"[0-9a-f]{32}")


def raw(array: np.ndarray) -> memoryview:
    """The bytes of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8).data


class Running:
    """The fingerprint of a tensor whose bytes come in pieces.

    Args:
        dtype: its name.
        shape: of the whole tensor.
    """

    def __init__(self, dtype: str, shape: Iterable[int]) -> None:
        # loading OpenSSL takes a while, and reading headers needs no digest
        import hashlib

        self._digest = hashlib.sha256(f"{dtype}{list(shape)}".encode())

    def update(self, piece: memoryview) -> None:
        """The next bytes."""
        self._digest.update(piece)

    def text(self) -> str:
        """The sha256 so far, in hexadecimal digits."""
        return self._digest.hexdigest()


def fingerprint(array: np.ndarray) -> str:
    """The sha256 of an array's dtype name, shape and bytes, in hexadecimal digits."""
    running = Running(array.dtype.name, array.shape)
    running.update(raw(array))
    return running.text()


def digests_text(digests: Mapping[str, str], names: Iterable[str]) -> str:
    """The digests of the names as the metadata hold them; zeros, of the same length, for those not yet known."""
    return json.dumps({name: digests.get(name, _BLANK) for name in names}, ensure_ascii=False, separators=(",", ":"))


def take_digests(
    metadata: Mapping[str, str], names: Collection[str], where: str
) -> tuple[dict[str, str], dict[str, str]]:
    """A file's metadata without the digests, and the digests.

    Raises:
        InputError: the digests are damaged, or are those of other tensors than the file has.
    """
    rest = dict(metadata)
    text = rest.pop(DIGESTS_KEY, None)
    if text is None:
        return rest, {}
    what = f"{where}: the metadata key {DIGESTS_KEY}"
    digests = parse_json(text.encode("utf-8", "surrogatepass"), what)
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        raise InputError(f"{what} does not map names to digests; the file is damaged, copy it again.")
    if digests and all(_EARLIER.fullmatch(digest) for digest in digests.values()):
        # orbax folders of earlier versions: another digest, over the bytes alone
        return rest, {}
    if not all(_SHA256.fullmatch(digest) for digest in digests.values()):
        raise InputError(f"{what} holds what is no sha256; the file is damaged, copy it again.")
    if set(digests) != set(names):
        raise InputError(
            f"{what} names other tensors than the file has; it is damaged or its description belongs to another file: "
            "copy it again with the description that was written with it."
        )
    return rest, digests
