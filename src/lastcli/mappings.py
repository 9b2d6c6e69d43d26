"""Reading small YAML and JSON mappings from people: recipes, sidecars, model descriptions.

PyYAML alone takes the last of two equal keys, expands aliases without end and reads `1e-3` as text. Here aliases,
duplicate keys, tags, keys that are not text, deep nesting and files above a size are refused, dates are text, and
numbers are converted where their type is known (`convert`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lastcli.errors import InputError

__all__ = ["SIZE_LIMIT", "convert", "key_lines", "load_mapping", "parse_json", "parse_mapping", "suggestion"]

SIZE_LIMIT = 1 << 20
_NODE_LIMIT = 20_000
_DEPTH_LIMIT = 50
_NUMBER_LIMIT = 400
_MAX_BITS = 1300
_TEXT_TAG = "tag:yaml.org,2002:str"


def load_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file.

    Raises:
        InputError: the file is missing, unreadable, larger than 1 MiB, not UTF-8, not a mapping, or uses aliases,
            duplicate keys or tags.
    """
    return parse_mapping(_text_of(path), str(path), is_json=path.suffix == ".json")


def key_lines(path: Path) -> dict[tuple[str, ...], int]:
    """{(key,) or (key, key below it): its line, from 1} of a file that `load_mapping` takes.

    Raises:
        InputError: the file cannot be read.
    """
    import yaml

    try:
        node = yaml.compose(_text_of(path), Loader=yaml.SafeLoader)
    except yaml.YAMLError:  # JSON that is no YAML, with tabs
        return {}
    found: dict[tuple[str, ...], int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        found[(key.value,)] = key.start_mark.line + 1
        for below, _ in value.value if isinstance(value, yaml.MappingNode) else ():
            if isinstance(below, yaml.ScalarNode):
                found[(key.value, below.value)] = below.start_mark.line + 1
    return found


def _text_of(path: Path) -> str:
    """A small text file.

    Raises:
        InputError: it is missing, unreadable, larger than 1 MiB, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; give the path of a YAML or JSON file.") from None
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror}).") from error
    if len(raw) > SIZE_LIMIT:
        raise InputError(f"{path}: larger than 1 MiB, so this is no recipe or model description.")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8.") from None


def parse_mapping(text: str, where: str, *, is_json: bool = False) -> dict[str, Any]:
    """The mapping in a YAML or JSON text; `where` names the source in messages.

    Raises:
        InputError: not a mapping, or not well-formed.
    """
    value = parse_json(text, where, remedy="correct it", finite=False) if is_json else _parse_yaml(text, where)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected `key: value` lines, found a {type(value).__name__}.")
    return value


def parse_json(data: bytes | str, what: str, *, remedy: str = "the file is damaged", finite: bool = True) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, bounded depth.

    Args:
        data: the document.
        what: names it in messages.
        remedy: how messages end.
        finite: refuse NaN and infinity, which are no JSON but which Python writes as such.

    Raises:
        InputError: not such a document.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        document = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant if finite else None)
        if "\\ud" in text.lower():
            # half of a surrogate pair is no text: it could be neither printed nor written again
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeError as error:
        raise InputError(f"{what} is not valid Unicode text (UTF-8); {remedy}.") from error
    except RecursionError as error:
        raise InputError(f"{what} is nested too deep to be real; {remedy}.") from error
    except ValueError as error:
        raise InputError(f"{what} is not valid JSON ({error}); {remedy}.") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key[:60]!r} appears twice")
        result[key] = value
    return result


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _parse_yaml(text: str, where: str) -> Any:
    import yaml

    try:
        _refuse_events(yaml.parse(text, Loader=yaml.SafeLoader), where)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _value(node, where, top=True)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{where}: not valid YAML{place}: {problem}.") from None


def _refuse_events(events: Iterable[Any], where: str) -> None:
    """What no recipe needs, found before the text is read as a whole: the time that YAML takes grows with its depth."""
    import yaml

    depth = 0
    for count, event in enumerate(events):
        place = f" (line {event.start_mark.line + 1})" if event.start_mark else ""
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{where}: uses a YAML alias{place}; write the value out.")
        if getattr(event, "tag", None) is not None:
            raise InputError(f"{where}: uses the YAML tag {event.tag[:60]!r}{place}; write the value without it.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEPTH_LIMIT:
            raise InputError(f"{where}: nested too deeply to be a recipe{place}.")
        if count > _NODE_LIMIT:
            raise InputError(f"{where}: more than {_NODE_LIMIT} entries, so this is no recipe or description.")


def _value(node: Any, where: str, *, top: bool = False) -> Any:
    """A node as dict, list, text, number, bool or None; a date is text, and so is every key below the top."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return [_value(item, where) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{where}: a key (line {line}) is a list or mapping and not text; write a word.")
            name = key.value
            if top and key.tag != _TEXT_TAG:
                raise InputError(f"{where}: the key {name[:60]!r} (line {line}) is not text; quote it.")
            if name in result:
                raise InputError(f"{where}: the key {name[:60]!r} appears twice (line {line}); keep one.")
            result[name] = _value(value, where)
        return result
    kind = node.tag.rpartition(":")[2]
    if kind not in ("null", "bool", "int", "float"):
        return node.value
    line = node.start_mark.line + 1
    if len(node.value) > _NUMBER_LIMIT:
        raise InputError(f"{where}: a number of {len(node.value):,} digits (line {line}); at most {_NUMBER_LIMIT}.")
    loader: Any = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    except (ValueError, OverflowError):
        raise InputError(f"{where}: {node.value[:60]!r} (line {line}) is no number; correct or quote it.") from None


def suggestion(word: str, known: Iterable[str]) -> str:
    """`" Did you mean X?"`, or the known words where nothing is near."""
    import difflib

    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(known))}."


_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def convert(value: Any, kind: type, what: str, error: type[Exception] = InputError) -> Any:
    """`value` as `kind` (bool, int, float or str); text is read explicitly, so `1e-3` is a number.

    Raises:
        InputError: (or `error`) the value cannot be read as `kind`; `what` names it.
    """
    if type(value) is int and value.bit_length() > _MAX_BITS:
        raise error(f"{what} is a number of more than {_NUMBER_LIMIT} digits; write a smaller one.")
    text = str(value).strip().lower()
    if kind is bool:
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise error(f"{what} must be true or false, not {value!r}.")
    if kind is str:
        if isinstance(value, (Mapping, list)):
            raise error(f"{what} must be text, not {value!r}.")
        return str(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise error(f"{what} must be a number, not {value!r}.")
    try:
        number = kind(text) if isinstance(value, str) else kind(value)
    except (ValueError, OverflowError):
        said = repr(value if not isinstance(value, str) or len(value) < 100 else f"{value[:60]}…")
        raise error(f"{what} must be {'a whole' if kind is int else 'a'} number, not {said}.") from None
    if kind is int and isinstance(value, float) and value != number:
        raise error(f"{what} must be a whole number, not {value!r}.")
    if number != number or number in (float("inf"), float("-inf")):
        raise error(f"{what} must be a finite number, not {value!r}.")
    return number
