"""The files beside a checkpoint that describe it, told from those that merely stand there.

Training code leaves metrics, results and configurations beside its checkpoints, and `last` itself may be asked to print
a result into NAME.json. A file describes a model for `last` only if it names a family, as every sidecar that `last`
writes does, or if it is the `config.json` of a model that a family reads (`families.read_config`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lastcli import families
from lastcli.containers import CONFIG, is_file
from lastcli.errors import InputError
from lastcli.mappings import SIZE_LIMIT, load_mapping

__all__ = ["RECORD_KEY", "Beside", "files_beside", "unused_note"]

RECORD_KEY = "last"
"""The key under which `last` keeps its own record."""

_SUFFIXES = (".json", ".yaml", ".yml")
# What a damaged sidecar of ours still shows: a key at the top, or the digests of the tensors.
_OURS = re.compile(rb'(?m)^[\s{]*"?(family|last)"?\s*:|"last\.(digests|container|extras)"')


@dataclass(frozen=True)
class Beside:
    """What stands beside a checkpoint.

    Attributes:
        path: the description that counts, or None.
        said: what it says, in the words of its family.
        config: a `config.json` that another library reads too and that a family understands, whole.
        unused: mappings that were read and do not count, by their path.
    """

    path: Path | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    unused: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)


def files_beside(path: Path, opened: Path) -> Beside:
    """`NAME.json` or `NAME.yaml` beside `NAME.*`, or `config.json` in its folder; the first that describes a model.

    Args:
        path: what was named.
        opened: what was opened: a file in the folder that was named, or the same.

    Raises:
        InputError: a sidecar that `last` wrote, or that names a family, is damaged.
    """
    unused: dict[Path, Mapping[str, Any]] = {}
    described: tuple[Path, Mapping[str, Any]] | None = None
    config: Mapping[str, Any] | None = None
    for file in dict.fromkeys([*_candidates(path), *_candidates(opened)]):
        if not is_file(file) or file in (path, opened):
            continue
        said = _read(file)
        if said is None:
            continue
        known = families.read_config(said) if file.name == CONFIG else None
        if known is not None:
            config = said
        if described is not None:
            continue
        if known is not None or _describes(said):
            described = (file, known if known is not None else said)
        elif not _is_result(said):
            unused[file] = said
    if described is None:
        return Beside(config=config, unused=unused)
    return Beside(*described, config=config, unused=unused)


def unused_note(unused: Mapping[Path, Mapping[str, Any]], settings: Mapping[str, Any]) -> str | None:
    """One sentence on what a file beside the checkpoint says of the model, and what is not taken from it.

    Args:
        unused: see `Beside`.
        settings: option → value that counts.
    """
    for file, said in unused.items():
        other = [key for key in said if key in settings and _differs(said[key], settings[key])]
        if other:
            shown = ", ".join(f"{key} {said[key]}" for key in other)
            return (
                f"{file.name} beside the checkpoint says {shown}, but names no family that last knows, so it is not "
                f"used; add a line `family` to it, or say it with --set or --model-config."
            )
    return None


def _candidates(path: Path) -> list[Path]:
    if path.is_dir() and not path.name:
        return [path / CONFIG]
    if path.is_dir():
        return [path.with_suffix(".json"), *(path.with_name(path.name + suffix) for suffix in _SUFFIXES), path / CONFIG]
    return [*(path.with_suffix(suffix) for suffix in _SUFFIXES), path.with_name(CONFIG)]


def _read(file: Path) -> dict[str, Any] | None:
    """The mapping in a file, None where it holds none and does not look like one of ours."""
    try:
        return load_mapping(file)
    except InputError:
        try:
            with file.open("rb") as stream:
                start = stream.read(SIZE_LIMIT)
        except OSError:
            return None
        if _OURS.search(start):
            raise
        return None


def _describes(said: Mapping[str, Any]) -> bool:
    if _is_result(said):
        return False
    record = said.get(RECORD_KEY)
    return "family" in said or (isinstance(record, Mapping) and not {"metadata", "version"}.isdisjoint(record))


def _is_result(said: Mapping[str, Any]) -> bool:
    """Whether it is what a command printed with --json."""
    return str(said.get("schema", "")).startswith("last.")


def _differs(value: Any, used: Any) -> bool:
    return isinstance(value, str | bool | int | float) and str(value).lower() != str(used).lower()
