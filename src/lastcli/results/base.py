"""What all results share: the way into JSON's own types."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

# in a field's metadata: no part of the JSON document
UNDOCUMENTED = "undocumented"

__all__ = ["UNDOCUMENTED", "OfModel", "PerSet", "Result", "UnstableStates", "plain"]


def plain(value: Any) -> Any:
    """`value` in JSON's own types: arrays as lists, dataclasses and mappings as dicts, NaN and infinity as None."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)  # an IntEnum becomes its number
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if hasattr(value, "document"):
            return value.document()
        fields = (item for item in dataclasses.fields(value) if not item.metadata.get(UNDOCUMENTED))
        return {item.name: plain(getattr(value, item.name)) for item in fields}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(item) for item in value]
    return str(value)


@dataclass(frozen=True, kw_only=True, eq=False)
class PerSet:
    """Part of a result that holds (sets, ...) arrays of a layer, in the fields that `per_set` names.

    They become one list each where the layer is MIMO, and a list for each channel where it is multi-SISO (`multi`).
    """

    per_set: ClassVar[tuple[str, ...]] = ()

    multi: bool = False

    def document(self) -> dict[str, Any]:
        """The layer's JSON."""
        names = [item.name for item in dataclasses.fields(self) if item.name != "multi"]
        return {name: self._values(name) if name in self.per_set else plain(getattr(self, name)) for name in names}

    def _values(self, name: str) -> Any:
        array = np.asarray(getattr(self, name))
        return plain(array if self.multi or array.ndim < 2 else array.reshape(-1))


@dataclass(frozen=True, kw_only=True)
class UnstableStates:
    """States of a layer with |λ| >= 1, which have no finite norm and are always kept.

    Attributes:
        states: their indices, (channel, state) pairs where the layer has channels.
        largest: the largest |λ|.
        energy: of each over `steps` steps of an impulse, since it has none for ever.
    """

    layer: str
    states: tuple[Any, ...]
    largest: float
    energy: tuple[float, ...]
    steps: int


class Result:
    """Base of the results; `command` names the schema."""

    command: ClassVar[str] = ""

    def to_json(self) -> dict[str, Any]:
        """The document `last.<command>/1`."""
        return {"schema": f"last.{self.command}/1"} | plain(self)


@dataclass(frozen=True, kw_only=True)
class OfModel(Result):
    """A result about one checkpoint: what was read, and as which family."""

    checkpoint: str
    family: str
