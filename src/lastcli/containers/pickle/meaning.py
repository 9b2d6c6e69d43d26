"""What records mean: tensors, arrays and plain containers become values, everything else stays a record.

A record is never called. Those whose kind is known here are read as what their library would have made of them; with
`fields`, objects of unknown classes are read as dictionaries of their fields too, and a whole `torch.nn.Module` as its
state_dict.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from lastcli.containers.pickle import arrays, tensors
from lastcli.containers.pickle.arrays import NotKnown, is_jax_array
from lastcli.containers.pickle.values import Global, Record, Span, Storage, Tensor, Unread
from lastcli.errors import InputError

__all__ = ["Meaning", "fields_of"]

_MAX_DEPTH = 100
_MAX_NAMES = 1_000_000
_MAX_BYTES = 2**26
_FAULTS = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, Global, Storage, Tensor, Unread)
_DICTS = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "flax.core.frozen_dict.FrozenDict",
    "haiku._src.data_structures.FlatMap",
    "haiku._src.data_structures.FlatMapping",
    "immutabledict.immutabledict",
    "frozendict.frozendict",
}
_MODULE = ("_parameters", "_buffers", "_modules")


class Meaning:
    """What the values of one pickle mean.

    Args:
        where: the file, for messages.
        fields: read objects of unknown classes as their fields.
        nested: what the bytes of a storage that was pickled by itself hold.
    """

    def __init__(self, where: str, *, fields: bool = False, nested: Callable[[Any], Storage] | None = None) -> None:
        self._where, self._fields, self._nested = where, fields, nested
        self._done: dict[int, tuple[Any, Any]] = {}
        self._open: set[int] = set()
        self._names = 0

    def value(self, raw: Any) -> Any:
        """The meaning of one value, the same object for the same object.

        Raises:
            InputError: it is nested without end, or a tensor in it is damaged.
        """
        if isinstance(raw, _PLAIN):
            return raw
        if isinstance(raw, Span):
            return raw.read() if raw.length <= _MAX_BYTES else Record(Global("builtins", "bytes"))
        key = id(raw)
        if key in self._done:
            return self._done[key][1]
        if key in self._open or len(self._open) > _MAX_DEPTH:
            if self._fields:
                return Record(Global("builtins", "object"))
            raise InputError(f"{self._where} is nested too deep or has too many values to be a checkpoint.")
        self._open.add(key)
        try:
            found = self._record(raw) if isinstance(raw, Record) else self._container(raw)
        finally:
            self._open.discard(key)
        self._done[key] = (raw, found)
        return found

    def _container(self, raw: Any) -> Any:
        if isinstance(raw, dict):
            return {self._key(key): self.value(item) for key, item in raw.items()}
        if isinstance(raw, list):
            return [self.value(item) for item in raw]
        if isinstance(raw, tuple):
            return tuple(self.value(item) for item in raw)
        return raw

    def _key(self, key: Any) -> Any:
        """A key as it is, a NumPy scalar as the number or text that it is."""
        if isinstance(key, Record):
            found = self.value(key)
            return found if isinstance(found, str | int | float | bool) else key
        return key

    def _record(self, record: Record) -> Any:
        try:
            kind = "jax" if is_jax_array(record.made) else record.kind
            known = arrays.KNOWN.get(kind) or tensors.KNOWN.get(kind) or _KNOWN.get(kind)
            if known is not None:
                return known(record, self.value)
            if record.kind == "torch.storage._load_from_bytes" and self._nested is not None:
                data = record.args[0]
                return self._nested(data if isinstance(data, Span) else self.value(data))
            if record.kind in _DICTS:
                return self._dictionary(record)
            return self._by_fields(record) if self._fields else record
        except NotKnown:
            return record
        except _FAULTS as error:
            raise InputError(f"{self._where} cannot be loaded ({error}); it is damaged.") from error

    def _dictionary(self, record: Record) -> dict[Any, Any]:
        made: dict[Any, Any] = OrderedDict()
        for argument in record.args:
            if isinstance(argument, dict | Record) and isinstance(found := self.value(argument), dict):
                made |= found
            elif isinstance(argument, list):
                made |= {_simple(self._key(pair[0])): self.value(pair[1]) for pair in argument}
        made |= {_simple(self._key(key)): self.value(item) for key, item in record.pairs}
        if isinstance(record.state, dict) and isinstance(record.state.get("_metadata"), dict | Record):
            # what a module's state_dict knows of its versions
            made._metadata = self.value(record.state["_metadata"])  # type: ignore[attr-defined]
        return made

    def _by_fields(self, record: Record) -> Any:
        fields = fields_of(record)
        if fields is not None and all(part in fields for part in _MODULE):
            return self._module(fields)
        if fields is not None:
            return {str(key): self.value(item) for key, item in fields.items() if isinstance(key, str | int)}
        if record.items or len(record.args) > 1:
            return [self.value(item) for item in record.items or record.args]
        return record

    def _module(self, fields: dict[Any, Any]) -> dict[str, Any]:
        """The state_dict of a module that was saved whole."""
        parameters, buffers, modules = (self.value(fields[part]) for part in _MODULE)
        hidden = self.value(fields.get("_non_persistent_buffers_set"))
        hidden = hidden if isinstance(hidden, set) else set(hidden) if isinstance(hidden, list) else set()
        own = {
            name: tensor
            for part in (parameters, {name: item for name, item in buffers.items() if name not in hidden})
            for name, tensor in part.items()
            if tensor is not None
        }
        found: dict[str, Any] = OrderedDict(own)
        for child, state in modules.items():
            if isinstance(state, dict):
                found |= {f"{child}.{name}": tensor for name, tensor in state.items()}
            self._names += len(found)
            if self._names > _MAX_NAMES:
                raise InputError(f"{self._where} is nested too deep or has too many values to be a checkpoint.")
        return found


def fields_of(record: Record) -> dict[Any, Any] | None:
    """The fields of an object, or what a mapping of a class of its own holds; None where it has none."""
    state = record.state
    if type(state) is tuple and len(state) == 2 and isinstance(state[1], dict):
        # objects with slots
        state = {**(state[0] if isinstance(state[0], dict) else {}), **state[1]}
    if record.pairs:
        return {key: item for key, item in record.pairs if isinstance(key, str)}
    if isinstance(state, dict) and state:
        return state
    if len(record.args) == 1 and isinstance(record.args[0], dict) and record.args[0]:
        return record.args[0]
    return state if isinstance(state, dict) else None


def _simple(key: Any) -> Any:
    """A key that costs nothing to hash.

    Raises:
        NotKnown: it may cost much.
    """
    if isinstance(key, str | float | bytes | bool | type(None)) or (type(key) is int and key.bit_length() <= 61):
        return key
    raise NotKnown


def _encoded(record: Record, value: Callable[[Any], Any]) -> bytes:
    text, *encoding = record.args
    if type(text) is not str or encoding[:1] not in ([], ["latin1"], ["latin-1"], ["utf-8"], ["utf8"], ["ascii"]):
        raise NotKnown
    return text.encode(*encoding[:1])


def _to_bytes(record: Record, value: Callable[[Any], Any]) -> bytes:
    found = value(record.args[0]) if record.args else b""
    if type(found) is str and len(record.args) == 2:
        return _encoded(record, value)
    if type(found) is not bytes:
        raise NotKnown
    return found


def _complex(record: Record, value: Callable[[Any], Any]) -> complex:
    return complex(*(float(part) for part in record.args))


def _to_list(record: Record, value: Callable[[Any], Any]) -> list[Any]:
    given = value(record.args[0]) if record.args else []
    return [*given, *map(value, record.items)]


def _to_set(record: Record, value: Callable[[Any], Any]) -> set[Any]:
    return {_simple(item) for item in _to_list(record, value)}


def _to_dict(record: Record, value: Callable[[Any], Any]) -> dict[Any, Any]:
    given = value(record.args[0]) if record.args else {}
    if not isinstance(given, dict):
        given = {_simple(key): item for key, item in given}
    return {**given, **{_simple(key): value(item) for key, item in record.pairs}}


def _reconstructor(record: Record, value: Callable[[Any], Any]) -> Any:
    """What protocols 0 and 1 make every object with: the object."""
    made = record.args[0]
    if not isinstance(made, Global):
        raise NotKnown
    return value(Record(made, (), {}, record.state, record.items, record.pairs))


_KNOWN: dict[str, Callable[[Record, Callable[[Any], Any]], Any]] = {
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructor,
    "copy_reg._reconstructor": _reconstructor,
    **{
        f"{module}.{name}": known
        for module in ("builtins", "__builtin__")
        for name, known in (
            ("bytes", _to_bytes),
            ("bytearray", _to_bytes),
            ("complex", _complex),
            ("list", _to_list),
            ("tuple", lambda record, value: tuple(_to_list(record, value))),
            ("set", _to_set),
            ("frozenset", _to_set),
            ("dict", _to_dict),
        )
    },
}
