"""Reading small YAML and JSON mappings from people: recipes, sidecars, model descriptions.

PyYAML alone takes the last of two equal keys, expands aliases without end and reads `1e-3` as text. Here aliases,
duplicate keys, Python tags and files above a size are refused, and numbers are converted where their type is known
(`convert`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lastcli.errors import InputError

__all__ = ["SIZE_LIMIT", "convert", "load_mapping", "parse_json", "parse_mapping", "suggestion"]

SIZE_LIMIT = 1 << 20
_NODE_LIMIT = 20_000


def load_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file.

    Raises:
        InputError: the file is missing, unreadable, larger than 1 MiB, not UTF-8, not a mapping, or uses aliases,
            duplicate keys or tags.
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
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    return parse_mapping(text, str(path), is_json=path.suffix == ".json")


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
    for key in value:
        if not isinstance(key, str):
            raise InputError(f"{where}: the key {key!r} is not text; quote it.")
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
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:60]!r} appears twice")
            seen.add(key)
    return result


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _parse_yaml(text: str, where: str) -> Any:
    import yaml

    try:
        for nodes, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                place = f" (line {event.start_mark.line + 1})" if event.start_mark else ""
                raise InputError(f"{where}: uses a YAML alias{place}; write the value out.")
            if nodes > _NODE_LIMIT:
                raise InputError(f"{where}: more than {_NODE_LIMIT} entries, so this is no recipe or description.")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _refuse_duplicates(node, where)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{where}: not valid YAML{place}: {problem}.") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply to be a recipe.") from None


def _refuse_duplicates(root: Any, where: str) -> None:
    import yaml

    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.SequenceNode):
            pending.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if key.value in seen and isinstance(key, yaml.ScalarNode):
                    line = key.start_mark.line + 1
                    raise InputError(f"{where}: the key {key.value!r} appears twice (line {line}); keep one.")
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
                pending.append(value)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`" Did you mean X?"`, or the known words where nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(known))}."


_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def convert(value: Any, kind: type, what: str, error: type[Exception] = InputError) -> Any:
    """`value` as `kind` (bool, int, float or str); text is read explicitly, so `1e-3` is a number.

    Raises:
        InputError: (or `error`) the value cannot be read as `kind`; `what` names it.
    """
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
        raise error(f"{what} must be {'a whole' if kind is int else 'a'} number, not {value!r}.") from None
    if kind is int and isinstance(value, float) and value != number:
        raise error(f"{what} must be a whole number, not {value!r}.")
    if number != number or number in (float("inf"), float("-inf")):
        raise error(f"{what} must be a finite number, not {value!r}.")
    return number
