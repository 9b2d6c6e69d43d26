"""The one reserved extras key, `last.structure`: how a nested file was built where its names alone do not tell.

    {"paths": {name: [key, ...]},            names that do not split at "/" into their path
     "integers": {name: [depth, ...]},       where in the path of a name the key is a number and not text
     "equinox": {"header": "...",            the text before the leaves of an .eqx file
                 "names": [name, ...],       its leaves in order
                 "scalars": [name, ...],     those that are numbers of Python
                 "dtypes": {name: dtype}},   those whose dtype NumPy's format does not tell
     "torch": {"at": [key, ...],             where in a torch file the state_dict lies
               "prefix": "module.",          what every name in it begins with
               "nested": true,               the state_dict is itself nested
               "versions": {module: {"version": 1}},   the `_metadata` of a state_dict
               "shared": [[name, ...]],      names that are one tensor
               "beside": {name: [key, ...]}, tensors that lie outside the state_dict, and where
               "others": [name, ...]}}       what begins the names of those that are another model's

It comes from files, so it is checked before anything trusts it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lastcli.containers.extras import STRUCTURE_KEY, take
from lastcli.errors import InputError

__all__ = ["merged", "of", "restricted", "sharing", "take_metadata", "without"]

# The parts that say something of single names.
_BY_NAME = {"paths", "integers"}


def of(extras: Mapping[str, Any]) -> dict[str, Any]:
    """The structure among the extras, empty where there is none."""
    structure = extras.get(STRUCTURE_KEY)
    return structure if isinstance(structure, dict) else {}


def take_metadata(metadata: Mapping[str, str], what: str) -> tuple[dict[str, str], dict[str, Any]]:
    """A file's metadata without the extras, and the extras, their structure checked.

    Raises:
        InputError: the extras are damaged.
    """
    rest, extras = take(metadata, what)
    if STRUCTURE_KEY in extras and not _is_sound(extras[STRUCTURE_KEY]):
        raise InputError(f"{what}: the metadata key {STRUCTURE_KEY} is damaged; write the file anew from its source.")
    return rest, extras


def merged(own: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Extras from the file's tree and from its metadata; what the tree itself shows counts."""
    structure = {**of(more), **of(own)}
    return {**more, **own, **({STRUCTURE_KEY: structure} if structure else {})}


def restricted(extras: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The extras without what is said of names that are gone."""
    structure = _without_gone(of(extras), names)
    kept = {key: value for key, value in structure.items() if key not in _BY_NAME}
    for part in (part for part in structure if part in _BY_NAME):
        own = {name: value for name, value in structure[part].items() if name in names or name in extras}
        kept |= {part: own} if own else {}
    rest = {key: value for key, value in extras.items() if key != STRUCTURE_KEY}
    return {**rest, **({STRUCTURE_KEY: kept} if kept else {})}


def sharing(extras: Mapping[str, Any], groups: Iterable[list[str]]) -> dict[str, Any]:
    """The extras with more groups of names that are one tensor."""
    structure = of(extras)
    form = structure.get("torch", {})
    shared = [*form.get("shared", []), *groups]
    return {**extras, STRUCTURE_KEY: {**structure, "torch": {**form, "shared": shared}}}


def _without_gone(structure: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The structure without the tensors beside the model that are gone, and the models all of whose are."""
    form = dict(structure.get("torch", {}))
    if "beside" not in form:
        return structure
    beside = {name: path for name, path in form.pop("beside").items() if name in names}
    others = [model for model in form.pop("others", []) if any(name.startswith(f"{model}/") for name in beside)]
    form |= ({"beside": beside} if beside else {}) | ({"others": others} if others else {})
    return {**structure, "torch": form}


def without(extras: Mapping[str, Any], parts: Collection[str]) -> dict[str, Any]:
    """The extras without the parts of the structure that a container shows by itself."""
    kept = {key: value for key, value in of(extras).items() if key not in parts}
    rest = {key: value for key, value in extras.items() if key != STRUCTURE_KEY}
    return {**rest, **({STRUCTURE_KEY: kept} if kept else {})}


def _is_sound(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) <= {*_BY_NAME, "torch", "equinox"}:
        return False
    form = value.get("torch", {})
    return (
        _is_mapping(value.get("paths", {}), _is_path)
        and _is_mapping(value.get("integers", {}), _are_depths)
        and _is_equinox(value.get("equinox", {}))
        and isinstance(form, dict)
        and set(form) <= {"at", "prefix", "nested", "versions", "shared", "beside", "others"}
        and (not form.get("at") or _is_path(form["at"]))
        and isinstance(form.get("prefix", ""), str)
        and isinstance(form.get("nested", False), bool)
        and _is_mapping(form.get("versions", {}), lambda item: _is_mapping(item, lambda number: type(number) is int))
        and isinstance(form.get("shared", []), list)
        and all(_is_path(group) for group in form.get("shared", []))
        and _is_mapping(form.get("beside", {}), _is_path)
        and isinstance(form.get("others", []), list)
        and all(isinstance(name, str) for name in form.get("others", []))
    )


def _are_depths(value: Any) -> bool:
    return isinstance(value, list) and all(type(depth) is int and depth >= 0 for depth in value)


def _is_equinox(form: Any) -> bool:
    return (
        isinstance(form, dict)
        and set(form) <= {"header", "names", "scalars", "dtypes"}
        and isinstance(form.get("header", ""), str)
        and all(_are_texts(form.get(part, [])) for part in ("names", "scalars"))
        and len(set(form.get("names", []))) == len(form.get("names", []))
        and _is_mapping(form.get("dtypes", {}), lambda dtype: isinstance(dtype, str))
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_path(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)


def _is_mapping(value: Any, sound: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and sound(item) for key, item in value.items())
