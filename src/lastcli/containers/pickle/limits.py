"""What a pickle may make the pickle machine do, counted before the machine runs.

A pickle is a program. That it can build nothing does not bound what it costs: a tuple that holds itself twice, thirty
levels deep, takes 2³⁰ steps to hash, and operations without end take as long. Every operation is therefore counted
before it is followed; of values only the shapes of tuples are looked at.
"""

from __future__ import annotations

from typing import Any

from lastcli.errors import InputError

__all__ = ["Limits"]

MAX_OPERATIONS = 2_000_000
MAX_WORK = 30_000_000
MAX_TUPLE_DEPTH = 500
MAX_PROTOCOL = 5

_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# operations that hash what they are given, or hand it to a function that may
_HASHING = {"SETITEM", "SETITEMS", "ADDITEMS", "FROZENSET", "DICT", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "OBJ"}
_HASHING |= {"APPEND", "APPENDS", "LIST", "INST"}

_Item = tuple[int, int]
"""What hashing a value costs, and how deep its tuples are."""

_PLAIN: _Item = (1, 0)


class Limits:
    """The stack, the marks and the memo of a pickle machine, with the costs of values instead of values."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._stack: list[_Item | None] = []
        self._memo: dict[int, _Item] = {}
        self._steps = 0
        self._work = 0

    def step(self, operation: Any, argument: Any) -> None:
        """Follow one operation.

        Raises:
            InputError: a limit is reached.
        """
        name = operation.name
        self._steps += 1
        if self._steps > MAX_OPERATIONS:
            self._refuse(f"more than {MAX_OPERATIONS:,} operations")
        if name == "PROTO" and argument > MAX_PROTOCOL:
            self._refuse(f"protocol {argument}")
        if name in _PUT or name == "MEMOIZE":
            self._remember(len(self._memo) if name == "MEMOIZE" else argument)
        elif name in _GET:
            self._stack.append(self._memo[argument])
        elif name == "MARK":
            self._stack.append(None)
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        elif name in _TUPLES:
            self._tuple(self._pop(_TUPLES[name]))
        elif name == "TUPLE":
            self._tuple(self._pop_to_mark())
        else:
            self._other(operation, argument)

    def _other(self, operation: Any, argument: Any) -> None:
        """An operation by what it takes from the stack and puts there."""
        before = operation.stack_before
        marked = any(item.name == "mark" for item in before)
        if operation.name in ("POP", "POP_MARK"):
            self._pop_to_mark() if operation.name == "POP_MARK" else self._pop(1)
            return
        below = [item.name for item in before].index("mark") if marked else len(before)
        taken = self._pop_to_mark() if marked else []
        taken += self._pop(below)
        if operation.name in _HASHING:
            self._spend(sum(cost for cost, _ in taken))
        for _ in operation.stack_after:
            cost = 1 + (argument.bit_length() // 64 if type(argument) is int else 0)
            self._stack.append((cost, 0))

    def _remember(self, index: int) -> None:
        if index > self._steps:
            self._refuse(f"the memo index {index:,}")
        top = self._stack[-1]
        self._memo[index] = _PLAIN if top is None else top

    def _tuple(self, items: list[_Item]) -> None:
        cost, depth = 1 + sum(cost for cost, _ in items), 1 + max((depth for _, depth in items), default=0)
        if depth > MAX_TUPLE_DEPTH:
            self._refuse(f"tuples nested more than {MAX_TUPLE_DEPTH} deep")
        if cost > MAX_WORK:
            self._refuse("a tuple that holds too many values")
        self._stack.append((cost, depth))

    def _pop(self, count: int) -> list[_Item]:
        if count > len(self._stack):
            raise IndexError(count)
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return [_PLAIN if item is None else item for item in items]

    def _pop_to_mark(self) -> list[_Item]:
        items: list[_Item] = []
        while (item := self._stack.pop()) is not None:
            items.append(item)
        return items

    def _spend(self, cost: int) -> None:
        self._work += cost
        if self._work > MAX_WORK:
            self._refuse("too much work")

    def _refuse(self, what: str) -> None:
        raise InputError(f"{self._where} is refused: its pickle asks for {what}, far more than a checkpoint needs.")
