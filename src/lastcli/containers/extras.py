"""Leaves that are not tensors, as JSON text, so that a container without a place for them loses nothing.

Values that JSON lacks are written as an object with one reserved key: `{"$float": "nan"}`, `{"$bytes": base64}`,
`{"$complex": [re, im]}`, `{"$tuple": [...]}`, `{"$map": [[key, value], ...]}` (keys that are not text, or a mapping
that itself has a reserved key).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

from lastcli.errors import InputError
from lastcli.mappings import parse_json

__all__ = ["EXTRAS_KEY", "STRUCTURE_KEY", "dumps", "loads", "representable", "take"]

EXTRAS_KEY = "last.extras"
"""The metadata key that holds the extras a container cannot hold in its own way."""

STRUCTURE_KEY = "last.structure"
"""The extras key that holds how a nested container was built where its names alone do not tell (see `tree`)."""

_MAX_DEPTH = 64


def representable(value: Any, depth: int = 0) -> bool:
    """Whether `dumps` can write the value."""
    if depth > _MAX_DEPTH:
        return False
    if value is None or isinstance(value, bool | int | float | str | bytes | complex):
        return type(value) in (type(None), bool, int, float, str, bytes, complex)
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(representable(item, depth + 1) for item in value)
    if isinstance(value, dict):
        return all(representable(key, depth + 1) and representable(item, depth + 1) for key, item in value.items())
    return False


def dumps(extras: Mapping[str, Any]) -> str:
    """The extras as one JSON document. The values must be `representable`."""
    return json.dumps({key: _encode(value) for key, value in extras.items()}, ensure_ascii=False, allow_nan=False)


def loads(text: str, what: str) -> dict[str, Any]:
    """The inverse of `dumps`.

    Raises:
        InputError: the text is not such a document; `what` names the file.
    """
    document = parse_json(text.encode("utf-8", "surrogatepass"), f"{what}: the metadata key {EXTRAS_KEY}")
    if not isinstance(document, dict):
        raise InputError(f"{what}: the metadata key {EXTRAS_KEY} is not a JSON object; the file is damaged.")
    try:
        return {key: _decode(value) for key, value in document.items()}
    except (ValueError, TypeError, binascii.Error) as error:
        raise InputError(f"{what}: the metadata key {EXTRAS_KEY} is damaged: {error}.") from error


def take(metadata: Mapping[str, str], what: str) -> tuple[dict[str, str], dict[str, Any]]:
    """A file's metadata without the extras, and the extras.

    Raises:
        InputError: the extras are damaged.
    """
    rest = dict(metadata)
    text = rest.pop(EXTRAS_KEY, None)
    return rest, {} if text is None else loads(text, what)


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, complex):
        return {"$complex": [_encode(value.real), _encode(value.imag)]}
    if isinstance(value, tuple):
        return {"$tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _encode(item) for key, item in value.items()}
        return {"$map": [[_encode(key), _encode(item)] for key, item in value.items()]}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (key, inner), *_ = value.items()
        if key == "$float":
            return float(inner)
        if key == "$bytes":
            return base64.b64decode(inner, validate=True)
        if key == "$complex":
            real, imag = (_decode(part) for part in inner)
            return complex(real, imag)
        if key == "$tuple":
            return tuple(_decode(item) for item in inner)
        if key == "$map":
            return {_decode(key): _decode(item) for key, item in inner}
    return {key: _decode(item) for key, item in value.items()}
