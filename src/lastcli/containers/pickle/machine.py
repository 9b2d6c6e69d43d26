"""A pickle machine that builds and runs nothing.

It follows every operation of the protocols 0 to 5, but a global stays a name (`Global`), and whatever would be called,
built or changed through one becomes a `Record` of that. What is left are Python's own numbers, texts, bytes, lists,
tuples, dictionaries and sets. Before an operation is followed, `limits` counts what it costs.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from lastcli.containers.inputs import shown
from lastcli.containers.pickle.limits import Limits
from lastcli.containers.pickle.stream import Stream
from lastcli.containers.pickle.values import Global, Record, Span
from lastcli.errors import InputError

__all__ = ["Machine", "run"]

# Bytes longer than this are left in the file until they are asked for.
_LONG = 256
_LENGTHS = {"SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
_FAULTS = (ValueError, TypeError, LookupError, AttributeError, OverflowError, EOFError, UnicodeError)
# Numbers longer than the modulus of Python's hash can be chosen to collide, and so can tuples of numbers.
_MAX_KEY_BITS = 61
_MAX_TUPLE_KEYS = 10_000

_MARK = object()
_OPERATIONS = {operation.code: operation for operation in pickletools.opcodes}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME", "READONLY_BUFFER"}


def run(
    stream: Stream,
    where: str,
    *,
    persistent: Callable[[Any], Any] | None = None,
    built: Callable[[Record, Stream], None] | None = None,
) -> Any:
    """The value of one pickle, which ends where the stream then stands.

    Args:
        stream: it begins at the stream's position.
        where: the file, for messages.
        persistent: what a reference to something outside the pickle stands for; None where there is none.
        built: told every record that gets its state, for formats that put bytes behind it.

    Raises:
        InputError: it is no pickle, breaks off, or asks for more than a checkpoint needs.
    """
    return Machine(stream, where, persistent, built).run()


class Machine:
    """Stack, memo and marks of one pickle; see `run`."""

    def __init__(
        self,
        stream: Stream,
        where: str,
        persistent: Callable[[Any], Any] | None = None,
        built: Callable[[Record, Stream], None] | None = None,
    ) -> None:
        self._stream, self._where = stream, where
        self._persistent, self._built = persistent, built
        self._limits = Limits(where)
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._tuple_keys = 0

    def run(self) -> Any:
        """See the function `run`."""
        try:
            while True:
                operation, argument = self._next()
                self._limits.step(operation, argument)
                if operation.name == "STOP":
                    return self._pop()
                self._step(operation.name, argument)
        except _FAULTS as error:
            raise InputError(f"{self._where} cannot be loaded: its pickle breaks off or is damaged.") from error

    def _next(self) -> tuple[Any, Any]:
        code = self._stream.read(1)
        operation = _OPERATIONS[code.decode("latin-1")]
        width = _LENGTHS.get(operation.name)
        if width is None:
            reader: Any = None if operation.arg is None else operation.arg.reader
            return operation, None if reader is None else reader(self._stream)
        prefix = self._stream.read(width)
        count = int.from_bytes(prefix, "little")
        if len(prefix) < width or count > self._stream.left:
            raise EOFError("bytes that are longer than the file")
        if count <= _LONG:
            return operation, self._stream.read(count)
        return operation, Span(self._stream.access, self._stream.skip(count), count)

    def _step(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self._stack.append(tuple(self._take(_TUPLES[name])))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top()
        elif (method := getattr(self, f"_do_{name.lower()}", None)) is not None:
            method(argument)
        elif argument is None:
            raise ValueError(name)
        else:
            # a number, a text or bytes
            self._stack.append(argument)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def _take(self, count: int) -> list[Any]:
        items = [self._stack.pop() for _ in range(count)]
        items.reverse()
        if any(item is _MARK for item in items):
            raise ValueError("a mark where a value should be")
        return items

    def _top(self) -> Any:
        if self._stack[-1] is _MARK:
            raise ValueError("a mark where a value should be")
        return self._stack[-1]

    def _to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        items.reverse()
        return items

    # what only moves values

    def _do_mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _do_pop(self, _: Any) -> None:
        self._stack.pop()

    def _do_pop_mark(self, _: Any) -> None:
        self._to_mark()

    def _do_dup(self, _: Any) -> None:
        self._stack.append(self._top())

    def _do_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    # plain containers

    def _do_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._to_mark()))

    def _do_list(self, _: Any) -> None:
        self._stack.append(self._to_mark())

    def _do_dict(self, _: Any) -> None:
        items, made = self._to_mark(), dict[Any, Any]()
        self._set(made, items)
        self._stack.append(made)

    def _do_frozenset(self, _: Any) -> None:
        self._stack.append(frozenset(self._key(item) for item in self._to_mark()))

    def _do_append(self, _: Any) -> None:
        item = self._pop()
        self._extend([item])

    def _do_appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _do_additems(self, _: Any) -> None:
        items, target = self._to_mark(), self._top()
        if isinstance(target, Record):
            target.items.extend(items)
        elif type(target) is set:
            target.update(self._key(item) for item in items)
        else:
            raise TypeError("items for what is no set")

    def _do_setitem(self, _: Any) -> None:
        pair = self._take(2)
        self._set(self._top(), pair)

    def _do_setitems(self, _: Any) -> None:
        items = self._to_mark()
        self._set(self._top(), items)

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Record):
            target.items.extend(items)
        elif type(target) is list:
            target.extend(items)
        else:
            raise TypeError("items for what is no list")

    def _set(self, target: Any, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("a key without a value")
        pairs = zip(items[::2], items[1::2], strict=True)
        if isinstance(target, Record):
            target.pairs.extend(pairs)
        elif type(target) is dict:
            for key, value in pairs:
                target[self._key(key)] = value
        else:
            raise TypeError("keys for what is no dictionary")

    def _key(self, key: Any) -> Any:
        """The key, unless so many of its kind can be made to collide."""
        if type(key) is int and key.bit_length() > _MAX_KEY_BITS:
            raise InputError(f"{self._where} is refused: its pickle has a key that is a number of too many digits.")
        if isinstance(key, tuple | frozenset):
            self._tuple_keys += 1
            if self._tuple_keys > _MAX_TUPLE_KEYS:
                raise InputError(f"{self._where} is refused: its pickle has too many tuples for keys.")
        return key

    # what would look up, call or build

    def _do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(Global(module, name))

    def _do_stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        if type(module) is not str or type(name) is not str:
            raise TypeError("a global without a name")
        self._stack.append(Global(module, name))

    def _do_ext1(self, code: int) -> None:
        self._stack.append(Global("copyreg", f"extension {code}"))

    _do_ext2 = _do_ext4 = _do_ext1

    def _do_inst(self, argument: str) -> None:
        args = tuple(self._to_mark())
        self._do_global(argument)
        self._call(self._pop(), args)

    def _do_obj(self, _: Any) -> None:
        made, *args = self._to_mark()
        self._call(made, tuple(args))

    def _do_reduce(self, _: Any) -> None:
        self._call(*self._take(2))

    _do_newobj = _do_reduce

    def _do_newobj_ex(self, _: Any) -> None:
        made, args, options = self._take(3)
        if type(options) is not dict:
            raise TypeError("named arguments that are no dictionary")
        self._call(made, args, options)

    def _call(self, made: Any, args: Any, options: dict[Any, Any] | None = None) -> None:
        if isinstance(made, Record):
            # what a record would have returned: known by the same name
            made = made.made
        if not isinstance(made, Global) or type(args) is not tuple:
            raise TypeError("a call of what cannot be called")
        if made.name in ("bytearray", "bytes") and any(type(item) is int for item in args):
            raise InputError(
                f"{self._where} is refused: its pickle asks for bytes ({made.name}) that are given by their number "
                "alone."
            )
        self._stack.append(Record(made, args, options or {}))

    def _do_build(self, _: Any) -> None:
        state = self._pop()
        target = self._top()
        if not isinstance(target, Record):
            raise TypeError("a state for what is no object")
        target.state = state
        if self._built is not None:
            self._built(target, self._stream)

    def _do_persid(self, pid: str) -> None:
        self._refer(pid)

    def _do_binpersid(self, _: Any) -> None:
        self._refer(self._pop())

    def _refer(self, pid: Any) -> None:
        if self._persistent is None:
            raise InputError(f"{self._where} refers to '{shown(pid)}' outside its pickle, which is not there.")
        self._stack.append(self._persistent(pid))

    def _do_next_buffer(self, _: Any) -> None:
        raise InputError(f"{self._where} keeps its arrays outside the pickle, in buffers that are not in the file.")
