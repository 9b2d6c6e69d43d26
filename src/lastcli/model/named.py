"""A family over a file whose names are not those of its code: names of the file outside, the family's inside."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.families.base import Config, Decoding, Family, Forward, Layer, Match, Read, Tensors
from lastcli.model.naming import Naming

if TYPE_CHECKING:
    from lastcli.engine.protocol import Reduction, System

__all__ = ["Named"]

_SAME = ("name", "title", "help", "source", "page", "converts_to", "diagonalises", "options", "axes", "input_layout")
_SAID = ("spellings",)
_SIZES = ("layouts", "default_methods", "sized", "frozen_figures")
_TOP = "layer"


class Named(Family):
    """A family that is asked in the names of a file.

    Args:
        family: the family itself.
        naming: from the file's names to those of the family.
        repeated: layers that the model runs again under another name, and which layer each is; both as in the file.
    """

    in_names_of_file = True

    def __init__(self, family: Family, naming: Naming, repeated: Mapping[str, str] = MappingProxyType({})) -> None:
        self.family, self.naming, self.repeated = family, naming, repeated
        for attribute in (*_SAME, *_SAID, *_SIZES):
            setattr(self, attribute, getattr(family, attribute))
        self._files: dict[str, str] = {}
        self._inner: dict[str, str] = {}

    def match(self, tensors: Tensors) -> Match:
        """See `Family.match`."""
        found = self.family.match(self._view(tensors))
        return dataclasses.replace(found, missing=tuple(self._file(name) for name in found.missing))

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """See `Family.infer`."""
        return self.family.infer(self._view(tensors))

    def settled(self, tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
        """See `Family.settled`."""
        return self.family.settled(self._view(tensors), config)

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """See `Family.idle`."""
        return self.family.idle(self._view(tensors))

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """See `Family.layers`; a layer that the model runs again is one."""
        found = map(self._outside, self.family.layers(self._view(tensors), config))
        return tuple(layer for layer in found if layer.name not in self.repeated)

    def refuses_moved_poles(self, layer: Layer, config: Config) -> str | None:
        """See `Family.refuses_moved_poles`."""
        return self.family.refuses_moved_poles(self._inside(layer), config)

    def system(self, layer: Layer, config: Config, read: Read) -> System:
        """See `Family.system`."""
        return self.family.system(self._inside(layer), config, self._read(read))

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """See `Family.rebuild`."""
        new = self.family.rebuild(self._inside(layer), config, self._read(read), reduction, size)
        return {self._file(name): array for name, array in new.items()}

    def magnitudes(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """See `Family.magnitudes`."""
        return self.family.magnitudes(self._inside(layer), config, self._read(read))

    def inside(self, layer: Layer, tensors: Tensors) -> dict[str, int]:
        """See `Family.inside`."""
        return self.family.inside(self._inside(layer), self._view(tensors))

    def inexact(self, layer: Layer, config: Config) -> str | None:
        """See `Family.inexact`."""
        return self.family.inexact(self._inside(layer), config)

    def upstream(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """See `Family.upstream`."""
        return self.family.upstream(document)

    def written_config(self, document: Mapping[str, Any], states: Sequence[int]) -> dict[str, Any]:
        """See `Family.written_config`."""
        return self.family.written_config(document, states)

    def for_sizes(self, config: Config, sizes: Sequence[int]) -> dict[str, Any]:
        """See `Family.for_sizes`."""
        return self.family.for_sizes(config, sizes)

    def size_note(self, sizes: Sequence[int]) -> str | None:
        """See `Family.size_note`."""
        return self.family.size_note(sizes)

    def decoding(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Decoding | None:
        """See `Family.decoding`."""
        return self.family.decoding(self._view(tensors), config, [self._inside(layer) for layer in layers])

    def described(self, tensors: Collection[str]) -> dict[str, Any]:
        """See `Family.described`."""
        return self.family.described([self.naming.plain(name) for name in tensors])

    def rebuilt_config(self, config: Config) -> dict[str, Any]:
        """See `Family.rebuilt_config`."""
        return self.family.rebuilt_config(config)

    def convert(
        self, tensors: Tensors, config: Config, read: Read, target: str
    ) -> tuple[dict[str, np.ndarray | None], dict[str, Any]]:
        """See `Family.convert`."""
        new, said = self.family.convert(self._view(tensors), config, self._read(read), target)
        return {self._file(name): array for name, array in new.items()}, said

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """See `Family.forward`; the inputs of a layer that the model runs again follow each other as sequences."""
        view = self._view(tensors)
        runs, places = self._runs(view, config, layers)
        found = self.family.forward(view, config, runs)
        if found is None:
            return None
        inner, files = found.apply, {name: self._files[name] for name in found.params}

        def apply(params: Mapping[str, Any], systems: Sequence[Any], x: Any, lengths: Any = None) -> Any:
            own = {name: params[file] for name, file in files.items()}
            outputs, inputs = inner(own, [systems[place] for place in places], x, lengths)
            return outputs, _by_layer(inputs, places, len(layers))

        stepped: dict[str, Any] = {}
        if found.step is not None and found.start is not None:
            inner_step, inner_start = found.step, found.start

            def step(params: Mapping[str, Any], systems: Sequence[Any], cache: Any, x: Any) -> Any:
                own = {name: params[file] for name, file in files.items()}
                return inner_step(own, [systems[place] for place in places], cache, x)

            stepped = {
                "step": step,
                # a layer that the model runs again carries states for each of its runs
                "start": lambda systems, n: inner_start([systems[place] for place in places], n),
            }
        return dataclasses.replace(found, apply=apply, params=tuple(files.values()), **stepped)

    def lacks(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> str | None:
        """See `Family.lacks`."""
        view = self._view(tensors)
        return self.family.lacks(view, config, self._runs(view, config, layers)[0])

    def _runs(self, view: Tensors, config: Config, layers: Sequence[Layer]) -> tuple[list[Layer], list[int]]:
        """The layers as often as the model runs them, in the family's names, and the place of each in `layers`."""
        if not self.repeated:
            return [self._inside(layer) for layer in layers], list(range(len(layers)))
        places = {layer.name: place for place, layer in enumerate(layers)}
        runs = [self._outside(layer) for layer in self.family.layers(view, config)]
        return list(map(self._inside, runs)), [places[self.repeated.get(run.name, run.name)] for run in runs]

    def _view(self, tensors: Tensors) -> Tensors:
        view, files = self.naming.view(tensors)
        self._files |= files
        return view

    def _read(self, read: Read) -> Read:
        return lambda name: read(self._file(name))

    def _file(self, name: str) -> str:
        """The file's name of a tensor; that of a new one beside those that are there."""
        if name in self._files:
            return self._files[name]
        for cut in range(len(name), -1, -1):
            if cut and name[cut - 1] not in "/.":
                continue
            beside = next((known for known in self._files if known.startswith(name[:cut])), None)
            if beside is not None:
                return self._path(self._files[beside], beside[cut:]) + name[cut:]
        return name

    def _outside(self, layer: Layer) -> Layer:
        tensors = {role: self._files[name] for role, name in layer.tensors.items()}
        name = layer.name
        inner, file = next(iter(layer.tensors.values())), next(iter(tensors.values()))
        if inner.startswith(name):
            name = self._path(file, inner[len(name) :]).rstrip("/.") or name
        elif name == _TOP:
            name = re.sub(r"[^/.]*$", "", file).rstrip("/.") or name
        self._inner[name] = layer.name
        return dataclasses.replace(layer, name=name, tensors=tensors)

    def _inside(self, layer: Layer) -> Layer:
        tensors = {role: self.naming.plain(name) for role, name in layer.tensors.items()}
        return dataclasses.replace(layer, name=self._inner.get(layer.name, layer.name), tensors=tensors)

    def _path(self, file: str, rest: str) -> str:
        """What stands before `rest` in a name of the file, wrappers inside `rest` not counted."""
        whole = self.naming.plain(file)
        wanted = whole[: len(whole) - len(rest)]
        ends = [match.end() for match in re.finditer(r"[/.]|$", file)]
        if rest.startswith(("/", ".")):
            ends = [end - 1 for end in ends[:-1]]
        cuts = [end for end in (0, *ends) if self._begins(file[:end]) == wanted]
        return file[: cuts[0]] if cuts else wanted

    def _begins(self, start: str) -> str:
        """The beginning of a name as families see it."""
        if not start or start.endswith(("/", ".")):
            return self.naming.plain(start + "x").removesuffix("x")
        return self.naming.plain(start + "/x").removesuffix("/x")


def _by_layer(inputs: Sequence[Any], places: Sequence[int], count: int) -> tuple[Any, ...]:
    """The inputs of every run as those of every layer; several runs stand one after the other along the batch."""
    own = [[u for u, place in zip(inputs, places) if place == layer] for layer in range(count)]
    if all(len(runs) == 1 for runs in own):
        return tuple(runs[0] for runs in own)
    import jax.numpy as jnp

    return tuple(runs[0] if len(runs) == 1 else jnp.concatenate(runs) for runs in own)
