"""What a file holds besides tensors and plain values: named in one note, by kind and number."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lastcli.containers.extras import representable
from lastcli.containers.inputs import shown
from lastcli.containers.pickle.arrays import is_jax_array
from lastcli.containers.pickle.values import Global, Record, Span, Storage, Tensor, Unread

__all__ = ["Foreign", "kinds_in"]

_MANY = 6
_MAX_NODES = 100_000
_ARRAYS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_reconstruct", "_frombuffer")


class Foreign:
    """Values that are not carried on."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.names: list[str] = []
        self.tensors = 0

    def add(self, name: str, value: Any) -> None:
        """Take note of a value by the name that it has in the file."""
        self.names.append(name)
        kinds, tensors = kinds_in(value)
        self.kinds += kinds
        self.tensors += tensors

    @property
    def note(self) -> str | None:
        """One sentence, or None where there is nothing."""
        if not self.names:
            return None
        kinds = [f"{shown(kind, 80)} ({count})" for kind, count in self.kinds.most_common()]
        more = len(kinds) - _MANY
        listed = ", ".join(kinds[:_MANY]) + (f" and {more} more kinds" if more > 0 else "")
        names = ", ".join(f"'{shown(name)}'" for name in self.names[:_MANY])
        left = len(self.names) - _MANY
        names += f" and {left} more" if left > 0 else ""
        held = f" with {self.tensors} tensor{'s' * (self.tensors > 1)} in them" if self.tensors else ""
        return f"Neither built nor carried on: {listed}{held}, at {names}."


def kinds_in(value: Any) -> tuple[Counter[str], int]:
    """Kinds of the outermost objects in a value, and how many tensors there are inside of them."""
    kinds: Counter[str] = Counter()
    tensors = 0
    stack: list[tuple[Any, bool]] = [(value, False)]
    seen: set[int] = set()
    while stack and len(seen) < _MAX_NODES:
        item, inside = stack.pop()
        if isinstance(item, Record | Global) and not inside:
            kinds[item.kind] += 1
        elif isinstance(item, Unread):
            kinds[f"a tensor that is {item.kind}"] += not inside
        elif isinstance(item, Tensor) and not inside:
            kinds[f"a tensor of {item.dtype}"] += 1
        elif isinstance(item, Span | Storage) and not inside:
            kinds["bytes"] += 1
        if isinstance(item, Tensor) or (
            isinstance(item, Record) and (item.made.name in _ARRAYS or is_jax_array(item.made))
        ):
            tensors += inside
            continue
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Record):
            stack += [(part, True) for part in (item.args, item.state, item.items, item.pairs)]
        elif isinstance(item, dict):
            stack += [(part, inside) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple | set | frozenset):
            stack += [(part, inside) for part in item]
    kinds = +kinds
    if not kinds and not representable(value):
        kinds[type(value).__name__] += 1
    return kinds, tensors
