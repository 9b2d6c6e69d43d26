"""A known family seen through a map: the file's tensors go in as the family's parts, and what it writes comes out as
the file's own names, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Family, Forward, Layer, Match, Read, Tensors
from lastcli.families.mapped.axes import arranged, restored
from lastcli.families.mapped.map import Map, Part
from lastcli.families.parts.storage import store

if TYPE_CHECKING:
    from lastcli.engine.protocol import Reduction, System

__all__ = ["Mapped"]

Changes = dict[str, np.ndarray | None]


@dataclass(frozen=True)
class MappedLayer(Layer):
    """A layer by the file's names (a part made of several tensors has a role for each), and as the family knows it."""

    inner: Layer = Layer("", 0, 0, {})
    parts: Mapping[str, Part] | None = None


class Mapped(Family):
    """`family` on files with other names; everything but names, axes and parametrisations is the family's own."""

    in_names_of_file = True

    def __init__(self, family: Family, map_: Map):
        self.family = family
        self.map = map_
        self.name = family.name
        self.title = f"{family.title}, by a map"
        self.help = family.help
        self.source = family.source
        self.page = family.page
        self.converts_to = family.converts_to
        self.diagonalises = family.diagonalises
        self.options = family.options
        self.spellings = family.spellings
        self.axes = family.axes
        self.input_layout = family.input_layout
        self.frozen_figures = family.frozen_figures

    def described(self, tensors: Collection[str]) -> dict[str, Any]:
        """The map, for the description of a file with these tensors."""
        return self.map.restricted(tensors).document()

    def match(self, tensors: Tensors) -> Match:
        """The family's match of the tensors as it sees them."""
        return self.family.match(self.map.view(tensors))

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """As the family does."""
        return self.family.infer(self.map.view(tensors))

    def settled(self, tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
        """As the family does."""
        return self.family.settled(self.map.view(tensors), config)

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """As the family does."""
        return self.family.idle(self.map.view(tensors))

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """The family's layers by the file's names."""
        parts = self.map.parts(tensors)
        found: list[Layer] = []
        for inner in self.family.layers(self.map.view(tensors), config):
            names: dict[str, str] = {}
            for role, name in inner.tensors.items():
                for index, own in enumerate(parts[name].expression.names if name in parts else (name,)):
                    names[role if index == 0 else f"{role} {index + 1}"] = own
            found.append(MappedLayer(inner.name, inner.states, inner.sets, names, inner, parts))
        return tuple(found)

    def refuses_moved_poles(self, layer: Layer, config: Config) -> str | None:
        """As the family does."""
        return self.family.refuses_moved_poles(_inner(layer), config)

    def system(self, layer: Layer, config: Config, read: Read) -> System:
        """The family's system of the parts."""
        return self.family.system(_inner(layer), config, _reads(layer, read))

    def rebuild(self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int) -> Changes:
        """What the family writes, as the file's own tensors.

        Raises:
            UnsupportedModelError: a part's function or dtype cannot hold the new numbers.
        """
        new = self.family.rebuild(_inner(layer), config, _reads(layer, read), reduction, size)
        return _written(new, _parts(layer), read)

    def magnitudes(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """Of the parts, as the family takes them."""
        return self.family.magnitudes(_inner(layer), config, _reads(layer, read))

    def inside(self, layer: Layer, tensors: Tensors) -> dict[str, int]:
        """As the family does."""
        return self.family.inside(_inner(layer), self.map.view(tensors))

    def rebuilt_config(self, config: Config) -> dict[str, Any]:
        """As the family does."""
        return self.family.rebuilt_config(config)

    def convert(self, tensors: Tensors, config: Config, read: Read, target: str) -> tuple[Changes, dict[str, Any]]:
        """The family's conversion, parts that stay by the file's own names."""
        parts = self.map.parts(tensors)
        new, said = self.family.convert(self.map.view(tensors), config, _part_reader(parts, read), target)
        return _written(new, parts, read), said

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The family's model, where all that is around the layers has the family's own names and form."""
        parts = self.map.parts(tensors)
        found = self.family.forward(self.map.view(tensors), config, [_inner(layer) for layer in layers])
        if found is None or not any(name in parts for name in found.params):
            return found
        if any(parts[name].expression.function for name in found.params if name in parts):
            return None
        own = {name: parts[name] for name in found.params if name in parts}
        names = {name: own[name].expression.name if name in own else name for name in found.params}

        def seen(params: Any) -> dict[str, Any]:
            values = {name: params[names[name]] for name in names}
            for name, part in own.items():
                values[name] = values[name] if part.axes is None else arranged(values[name], part.axes)
            return values

        def apply(params: Any, systems: Any, x: Any, lengths: Any = None) -> tuple[Any, tuple[Any, ...]]:
            return found.apply(seen(params), systems, x, lengths)

        inner = found.step
        step = None if inner is None else lambda params, *rest: inner(seen(params), *rest)
        return replace(found, apply=apply, step=step, params=tuple(names.values()))

    def lacks(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> str | None:
        """As the family does."""
        return self.family.lacks(self.map.view(tensors), config, [_inner(layer) for layer in layers])


def _inner(layer: Layer) -> Layer:
    return layer.inner if isinstance(layer, MappedLayer) else layer


def _parts(layer: Layer) -> Mapping[str, Part]:
    return (layer.parts or {}) if isinstance(layer, MappedLayer) else {}


def _reads(layer: Layer, read: Read) -> Read:
    return _part_reader(_parts(layer), read)


def _part_reader(parts: Mapping[str, Part], read: Read) -> Callable[[str], np.ndarray]:
    """`read` by the family's names."""

    def value(name: str) -> np.ndarray:
        if name not in parts:
            return read(name)
        part = parts[name]
        values = part.expression.value(read)
        return np.ascontiguousarray(values if part.axes is None else arranged(values, part.axes))

    return value


def _written(new: Changes, parts: Mapping[str, Part], read: Read) -> Changes:
    """The file's tensors from those of the family.

    Raises:
        UnsupportedModelError: half of a tensor goes and the other half stays, or a number does not fit.
    """
    changes: Changes = {}
    halves: dict[str, dict[str, np.ndarray]] = {}
    gone: set[str] = set()
    for name, values in new.items():
        if name not in parts:
            changes[name] = values
        elif values is None:
            gone |= set(parts[name].expression.names)
        else:
            for own, half, numbers in _undone(parts[name], values, read):
                like = read(own)
                if half:
                    halves.setdefault(own, {})[half] = numbers
                else:
                    changes[own] = store(numbers, like, own)
    for own, both in halves.items():
        stored = read(own)
        real, imag = both.get("real", stored.real), both.get("imag", stored.imag)
        if real.shape != imag.shape:
            raise UnsupportedModelError(
                f"{own}: the reduction changes one half of its complex numbers only; map both halves of it."
            )
        joined = np.empty(real.shape, np.result_type(stored.dtype, np.complex64))
        joined.real, joined.imag = real, imag
        changes[own] = store(joined, stored, own)
    torn = sorted(gone & changes.keys())
    if torn:
        raise UnsupportedModelError(
            f"{torn[0]}: the new form of the layer needs one part of it only; map it otherwise."
        )
    return changes | dict.fromkeys(gone - changes.keys())


def _undone(part: Part, values: np.ndarray, read: Read) -> list[tuple[str, str, np.ndarray]]:
    """The file's numbers of a part; those that are there already come out with the same bits."""
    expression = part.expression
    if part.axes is not None:
        values = restored(values, part.axes, np.asarray(expression.value(read)).ndim)
    found = []
    for own, half, numbers in expression.undo(values, part.name):
        stored = read(own)
        if half:
            stored = getattr(stored, half)
        found.append((own, half, _same_bits(numbers, values, expression, stored, read)))
    return found


def _same_bits(numbers: np.ndarray, values: np.ndarray, expression: Any, stored: np.ndarray, read: Read) -> np.ndarray:
    """`numbers` with every one whose value the file already has as the file has it.

    A function and its inverse may differ by a rounding in float64; what a reduction only gathers must not.
    """
    before = np.asarray(expression.value(read)) if expression.function else stored
    if before is stored or before.shape != stored.shape or np.iscomplexobj(before) or np.iscomplexobj(stored):
        return numbers
    known, first = np.unique(before, return_index=True)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    wide = np.result_type(stored.dtype, numbers.dtype)
    return np.where(known[at] == values, stored.reshape(-1)[first[at]].astype(wide), numbers.astype(wide))
