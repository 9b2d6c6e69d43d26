"""Small lies about a file: flipped bits, changed lengths and counts, cut, doubled and exchanged pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

__all__ = ["mutate"]

_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_TEXTS = (*b'-1 0 1 2 1e400 NaN null [] {} "" true 1.5'.split(), b"9" * 30, b"9" * 5000)


def mutate(data: bytes, random: Random, tokens: Sequence[bytes] = ()) -> bytes:
    """`data` after one to three changes; `tokens` are words of its format, exchanged for one another."""
    changes: list[Callable[[bytearray, Random], None]] = [_flip, _flip, _byte, _integer, _integer, _digits, _cut, _move]
    changes += [_double, _remove]
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if tokens and random.random() < 0.3:
            _token(changed, random, tokens)
        else:
            random.choice(changes)(changed, random)
    return bytes(changed)


def _place(data: bytearray, random: Random) -> int:
    """A position, half of the time near one of the ends, where formats keep their structure."""
    if not data:
        return 0
    near = min(len(data), 400)
    choice = random.random()
    if choice < 0.4:
        return random.randrange(near)
    if choice < 0.6:
        return len(data) - 1 - random.randrange(near)
    return random.randrange(len(data))


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[_place(data, random)] ^= 1 << random.randrange(8)


def _byte(data: bytearray, random: Random) -> None:
    if data:
        data[_place(data, random)] = random.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x7B, random.randrange(256)))


def _integer(data: bytearray, random: Random) -> None:
    """A number of 1 to 8 bytes, as lengths and counts are."""
    width = random.choice((1, 2, 4, 8))
    at = _place(data, random)
    if at + width <= len(data):
        number = random.choice(_NUMBERS) % 256**width
        data[at : at + width] = number.to_bytes(width, random.choice(("little", "big")))


def _digits(data: bytearray, random: Random) -> None:
    """A number written in digits."""
    found = list(re.finditer(rb"\d+", data))
    if found:
        match = random.choice(found)
        near = str(max(int(match[0][:18]) + random.choice((-1, 1, 8)), 0)).encode()
        data[match.start() : match.end()] = random.choice((near, random.choice(_TEXTS)))


def _cut(data: bytearray, random: Random) -> None:
    del data[_place(data, random) :]


def _remove(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    del data[at : at + random.choice((1, 2, 4, 8, 40))]


def _double(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at:at] = data[at : at + random.choice((1, 2, 4, 8, 40))]


def _move(data: bytearray, random: Random) -> None:
    """Two pieces of one length exchanged."""
    length = random.choice((1, 2, 4, 8, 16))
    first, second = sorted((_place(data, random), _place(data, random)))
    if first + length <= second and second + length <= len(data):
        data[first : first + length], data[second : second + length] = (
            data[second : second + length],
            data[first : first + length],
        )


def _token(data: bytearray, random: Random, tokens: Sequence[bytes]) -> None:
    token = random.choice(tokens)
    found = [match.start() for match in re.finditer(re.escape(token), data)]
    other = random.choice([*tokens, *_TEXTS])
    if found:
        at = random.choice(found)
        data[at : at + len(token)] = other
    else:
        at = _place(data, random)
        data[at:at] = other
