"""Forward passes that are shared: a model opened again, or pruned to other sizes of the same names, is the same code.

A program is traced and compiled for a function. A second function that does the same would be traced and compiled once
more, which takes longer than a small model runs. So what `Family.forward` gives is remembered for as long as it
depends on nothing but names, shapes and plain options; it holds no values.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from lastcli.containers.base import TensorInfo
from lastcli.families.base import Config, Family, Forward, Layer
from lastcli.model.named import Named

__all__ = ["shared_forward"]

_REMEMBERED = 32
_PLAIN = (str, int, float, bool, type(None))


class _Question:
    """What a family is asked; two with equal keys have the same answer."""

    def __init__(
        self, key: Hashable, family: Family, tensors: Mapping[str, TensorInfo], config: Config, layers: Sequence[Layer]
    ):
        self.key, self.family, self.tensors, self.config, self.layers = key, family, tensors, config, layers

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Question) and self.key == other.key

    def ask(self) -> Forward | None:
        """The family's answer."""
        return self.family.forward(self.tensors, self.config, self.layers)


def shared_forward(
    family: Family, tensors: Mapping[str, TensorInfo], config: Config, layers: Sequence[Layer]
) -> Forward | None:
    """`Family.forward`; the very same functions where the same was asked before.

    Raises:
        UnsupportedModelError: as the family does; an error is not remembered.
    """
    options = _plain(config)
    if options is None:
        return family.forward(tensors, config, layers)
    key = (
        _identity(family),
        tuple(sorted((name, info.shape, info.dtype) for name, info in tensors.items())),
        options,
        tuple((layer.name, layer.states, layer.sets, *sorted(layer.tensors.items())) for layer in layers),
    )
    return _answer(_Question(key, family, tensors, config, layers))


@lru_cache(maxsize=_REMEMBERED)
def _answer(question: _Question) -> Forward | None:
    return question.ask()


def _identity(family: Family) -> Hashable:
    """Which family it is; families over names of a file are made anew for each file."""
    if isinstance(family, Named):
        return (family.family, family.naming, tuple(sorted(family.repeated.items())))
    return family


def _plain(value: Any) -> Hashable | None:
    """The options as something to compare, with the types of the values; None if one of them is an object."""
    if isinstance(value, Mapping):
        parts = {str(key): _plain(part) for key, part in value.items()}
        return None if None in parts.values() else ("mapping", *sorted(parts.items(), key=lambda item: item[0]))
    if isinstance(value, (list, tuple)):
        items = tuple(map(_plain, value))
        return None if None in items else (type(value).__name__, *items)
    return (type(value).__name__, value) if isinstance(value, _PLAIN) else None
