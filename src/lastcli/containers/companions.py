"""What other programs put beside the tensors of a folder, and look for there: `config.json`, a tokenizer.

They belong to the checkpoint: a folder that is written gets them in the same step as its tensors, so that no moment
exists in which they say one thing and the tensors another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lastcli.containers.inputs import is_file, read_small, shown
from lastcli.errors import InputError

__all__ = ["CONFIG", "companion_names", "companions_of", "is_companion"]

CONFIG = "config.json"
"""The file from which other libraries build the model beside it."""

_NAMES = re.compile(
    r"config\.json|generation_config\.json|preprocessor_config\.json|tokenizer[\w.-]*\.(json|model)|"
    r"special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|spiece\.model|chat_template\.(json|jinja)"
)
_LARGEST = 256 * 2**20


def is_companion(name: str) -> bool:
    """Whether a file of that name belongs to the checkpoint in whose folder it lies."""
    return _NAMES.fullmatch(name) is not None


def companion_names(folder: Path) -> list[str]:
    """Names of the files beside a checkpoint that belong to it, sorted; none where there is no `config.json`."""
    if not is_file(folder / CONFIG):
        return []
    return sorted(path.name for path in folder.iterdir() if is_companion(path.name) and is_file(path))


def companions_of(folder: Path) -> Mapping[str, bytes]:
    """The files beside a checkpoint that belong to it; none where there is no `config.json`.

    Raises:
        InputError: one of them cannot be read, or is larger than such a file is.
    """
    found = {}
    for path in (folder / name for name in companion_names(folder)):
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{shown(path, 1000)} has more than 256 MiB, which no such file has; move it away.")
        found[path.name] = read_small(path, _LARGEST)
    return found
