"""The JSON file NAME.json beside NAME.ext: the model description of containers that have no metadata of their own.

It is the description itself, a flat mapping for people to read and edit. Where a file's other metadata or leftover
extras have no other place, they are kept under its key "last", in "metadata"; so are the digests of the tensors, which
show whether the two files belong together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lastcli.containers.digests import DIGESTS_KEY
from lastcli.containers.inputs import is_file, read_small
from lastcli.errors import InputError, OutputError
from lastcli.mappings import parse_json

__all__ = [
    "CONTAINER_KEY",
    "DESCRIPTION_KEY",
    "same_but_digests",
    "sidecar_metadata",
    "sidecar_path",
    "sidecar_text",
    "without_kept",
]

DESCRIPTION_KEY = "last.description"
"""The metadata key that holds the model description as JSON text."""

CONTAINER_KEY = "last.container"
"""The metadata key under which a sidecar keeps the container of the file that it was written with."""

_MAX_SIDECAR = 2**26


def sidecar_path(path: Path) -> Path:
    """NAME.json beside NAME.ext."""
    return path.with_suffix(".json")


def sidecar_text(metadata: Mapping[str, str]) -> str:
    """The sidecar for a file with this metadata.

    Raises:
        OutputError: the description is not a JSON object.
    """
    rest = dict(metadata)
    try:
        description: Any = json.loads(rest.pop(DESCRIPTION_KEY, "{}"))
    except ValueError as error:
        raise OutputError(f"The model description is not JSON: {error}.") from error
    if not isinstance(description, dict) or not isinstance(description.get("last", {}), dict):
        raise OutputError("The model description must be a JSON object, and its key 'last' too.")
    if rest:
        description["last"] = {**description.get("last", {}), "metadata": rest}
    return json.dumps(description, indent=2, ensure_ascii=False) + "\n"


def without_kept(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata, the description freed of what a sidecar kept in it: it is among the metadata already.

    Digests and container, which are of the file that was read, are left out too.
    """
    metadata = {key: value for key, value in metadata.items() if key not in (DIGESTS_KEY, CONTAINER_KEY)}
    text = metadata.get(DESCRIPTION_KEY)
    if text is None or '"metadata"' not in text:
        return dict(metadata)
    try:
        description: Any = json.loads(text)
    except ValueError:
        return dict(metadata)
    last = description.get("last") if isinstance(description, dict) else None
    if not isinstance(last, dict) or "metadata" not in last:
        return dict(metadata)
    del last["metadata"]
    if not last:
        del description["last"]
    return {**metadata, DESCRIPTION_KEY: json.dumps(description, ensure_ascii=False)}


def same_but_digests(old: bytes, text: str) -> bool:
    """Whether a sidecar that is there says what `text` says, apart from the digests of the tensors."""
    return _without_digests(old.decode("utf-8", "replace")) == _without_digests(text)


def _without_digests(text: str) -> Any:
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    last = document.get("last") if isinstance(document, dict) else None
    kept = last.get("metadata") if isinstance(last, dict) else None
    if isinstance(kept, dict):
        kept.pop(DIGESTS_KEY, None)
    return document


def sidecar_metadata(path: Path, container: str) -> dict[str, str]:
    """What a sidecar written by `last` keeps of a file's metadata, the description left out.

    A sidecar that is not readable as such is not an error here: whoever wants the description reports it. What one
    keeps for a file of another container (NAME.pt and NAME.msgpack have the same sidecar) does not count.
    """
    beside = sidecar_path(path)
    if beside == path or not is_file(beside):
        return {}
    try:
        document = parse_json(read_small(beside, _MAX_SIDECAR), str(beside))
    except InputError:
        return {}
    last = document.get("last") if isinstance(document, dict) else None
    metadata = last.get("metadata") if isinstance(last, dict) else None
    if not isinstance(metadata, dict):
        return {}
    kept = {key: value for key, value in metadata.items() if isinstance(value, str)}
    return kept if kept.pop(CONTAINER_KEY, container) == container else {}
