"""One module under two names: `self.model = nn.Sequential(self.encoder, ...)` writes every tensor of it twice.

Two names are one module where its tensors are one storage, as the container tells (`Reader.shared`). A container that
cannot tell keeps two copies of the bytes; there, two paths are taken for one module where all state space layers below
them are equal in every byte, which two trained modules never are. Layers of one stack (paths that differ in a number
only) are one layer only where the storage says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lastcli.containers.base import Reader, TensorInfo
from lastcli.containers.digests import fingerprint
from lastcli.families.base import Layer

__all__ = ["Aliases", "find_aliases"]


@dataclass(frozen=True)
class Aliases:
    """The second names of a file.

    Attributes:
        roots: (what the first names begin with, what the second names begin with), of every module with two.
        names: second name → first name.
        repeated: layers that a stack runs again: name → the layer that it is.
        notes: one sentence for every module.
    """

    roots: tuple[tuple[str, str], ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    repeated: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def hidden(self) -> frozenset[str]:
        """The names that families need not see: those of modules that are the same elsewhere."""
        again = tuple(f"{name}{separator}" for name in self.repeated for separator in "/.")
        return frozenset(name for name in self.names if not name.startswith(again))

    @property
    def modules(self) -> tuple[tuple[str, str], ...]:
        """The roots of modules that are the same elsewhere, without layers that a stack runs again."""
        return tuple(pair for pair in self.roots if pair[1].rstrip("/.") not in self.repeated)

    def of(self, name: str, there: Collection[str]) -> list[str]:
        """The second names of a tensor, `there` being the names of the file; those of a new one too."""
        if name in there:
            return [second for second, first in self.names.items() if first == name]
        return [other + name[len(root) :] for root, other in self.roots if name.startswith(root)]


def find_aliases(reader: Reader, tensors: Mapping[str, TensorInfo], layers: Sequence[Layer]) -> Aliases:
    """The modules among `layers` that are there twice.

    Args:
        tensors: the tensors of the chosen model.
        layers: its layers in the names of the file.
    """
    same = _Same(reader, tensors)
    roots: dict[tuple[str, str], list[tuple[Layer, Layer]]] = {}
    for i, second in enumerate(layers):
        for first in layers[:i]:
            if _alike(first, second, tensors):
                roots.setdefault(_roots(first, second), []).append((first, second))
    pairs: list[tuple[str, str]] = []
    repeated: dict[str, str] = {}
    notes: list[str] = []
    for (root, other), found in roots.items():
        stacked = _numberless(root) == _numberless(other)
        if any(root.startswith(done) or other.startswith(done) for _, done in pairs):
            continue
        known = all(same.storage(name, again) for layers in found for name, again in _names(*layers))
        if not known and (stacked or not all(same.bytes(a, b) for layers in found for a, b in _names(*layers))):
            continue
        if stacked:
            repeated |= {again.name: repeated.get(layer.name, layer.name) for layer, again in found}
        pairs.append((root, other))
        notes.append(_note(root, other, len(found), known))
    names: dict[str, str] = {}
    for root, other in pairs:
        for name in (name for name in tensors if name.startswith(other)):
            origin = root + name.removeprefix(other)
            if origin in tensors and origin != name and same.bytes(origin, name):
                names[name] = names.get(origin, origin)
    return Aliases(tuple(pairs), names, repeated, tuple(notes))


class _Same:
    """Whether two names are one tensor."""

    def __init__(self, reader: Reader, tensors: Mapping[str, TensorInfo]) -> None:
        self._reader, self._tensors = reader, tensors
        self._group = {name: i for i, names in enumerate(reader.shared) for name in names}
        self._digests: dict[str, str] = {}

    def storage(self, first: str, second: str) -> bool:
        """As the container tells, and the bytes do not deny (what a file says of itself may be wrong)."""
        group = self._group.get(first)
        return group is not None and group == self._group.get(second) and self.bytes(first, second)

    def bytes(self, first: str, second: str) -> bool:
        """The same shape, dtype and bytes."""
        a, b = self._tensors[first], self._tensors[second]
        return (a.shape, a.dtype) == (b.shape, b.dtype) and self._digest(first) == self._digest(second)

    def _digest(self, name: str) -> str:
        if name not in self._digests:
            self._digests[name] = self._reader.digests.get(name) or fingerprint(self._reader.load(name))
        return self._digests[name]


def _alike(first: Layer, second: Layer, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether two layers have the same tensors at the end of paths that differ before it."""
    if first.tensors.keys() != second.tensors.keys():
        return False
    return all(
        (tensors[a].shape, tensors[a].dtype) == (tensors[b].shape, tensors[b].dtype)
        for a, b in _names(first, second)
        if a in tensors and b in tensors
    )


def _names(first: Layer, second: Layer) -> Iterable[tuple[str, str]]:
    return [(first.tensors[role], second.tensors[role]) for role in first.tensors]


def _roots(first: Layer, second: Layer) -> tuple[str, str]:
    """What the two paths begin with, each with its last separator, until they are the same."""
    a, b = (re.findall(r"[^/.]*[/.]|[^/.]+$", layer.name + "/") for layer in (first, second))
    while a and b and a[-1][:-1] == b[-1][:-1]:
        a.pop()
        b.pop()
    roots = "".join(a), "".join(b)
    whole = zip(roots, (first, second))
    return tuple(_as_in_file(root, layer) for root, layer in whole)  # type: ignore[return-value]


def _as_in_file(root: str, layer: Layer) -> str:
    """A root that is the whole layer's name ends as the layer's tensors go on."""
    if root[:-1] != layer.name:
        return root
    name = next(iter(layer.tensors.values()))
    return name[: len(root)] if name.startswith(layer.name) else root


def _numberless(root: str) -> str:
    return re.sub(r"\d+", "#", root)


def _note(root: str, other: str, count: int, known: bool) -> str:
    a, b = root.rstrip("/.") or "the top of the file", other.rstrip("/.") or "the top of the file"
    layers = "its layer is" if count == 1 else f"its {count} layers are"
    why = "are one module under two names" if known else "are equal in every byte and taken for one module"
    return f"'{a}' and '{b}' {why}: {layers} counted and cut once, and written under both names."
