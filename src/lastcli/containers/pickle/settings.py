"""The settings of a run in a pickle, whatever holds them: a dictionary, a Namespace, OmegaConf, a dataclass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lastcli.containers.pickle.holders import HOLDERS
from lastcli.containers.pickle.meaning import fields_of
from lastcli.containers.pickle.values import Record

__all__ = ["settings_in"]

_MAX_DEPTH = 12
_MAX_NODES = 20_000
# Where OmegaConf's containers and nodes, and ml_collections, keep what they stand for.
_INSIDE = ("_content", "_val", "_fields")


def settings_in(raw: Any) -> dict[str, Any]:
    """Numbers and texts by path ("hyper_parameters/model/d_state") under the keys of `HOLDERS`.

    Args:
        raw: what the pickle machine made of the file.
    """
    top = _mapping(raw)
    found: dict[str, Any] = {}
    if top is None:
        return found
    left = [_MAX_NODES]
    for key in HOLDERS:
        if key in top:
            for path, value in _leaves(top[key], (key,), left):
                found.setdefault("/".join(path), value)
    return found


def _leaves(raw: Any, path: tuple[str, ...], left: list[int]) -> Iterator[tuple[tuple[str, ...], Any]]:
    left[0] -= 1
    if left[0] < 0 or len(path) > _MAX_DEPTH:
        return
    if isinstance(raw, bool | int | float | str):
        yield path, raw
        return
    fields = _mapping(raw)
    if fields is None:
        return
    inner = next((fields[key] for key in _INSIDE if key in fields), None) if isinstance(raw, Record) else None
    if inner is not None:
        yield from _leaves(inner, path, left)
        return
    for key, value in fields.items():
        if isinstance(key, str) and not key.startswith("__"):
            yield from _leaves(value, (*path, key), left)


def _mapping(raw: Any) -> dict[Any, Any] | None:
    return raw if isinstance(raw, dict) else fields_of(raw) if isinstance(raw, Record) else None
