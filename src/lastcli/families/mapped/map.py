"""A map: how the parts of a known family are found in a file with names, axes and parametrisations of its own.

In a model description it is said beside the family and its options::

    family: annotated_s4
    layers: "layers.*.seq"                   # the layers' paths; * is any one part of a name
    names: {C: C_real_imag}                  # the family's part → the file's tensor, or functions of tensors
    axes: {C: [1, 0, 2], log_step: [1, 0]}   # the family's axes by their number in the file's tensor
    kernel_length: 128                       # an option of the family

Parts that are not named are the tensors of their own name. A family's part may have a path (`kernel.C`), and so may a
tensor (`ssm.C`, below the layer).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lastcli.containers.base import TensorInfo
from lastcli.errors import InputError, UnsupportedModelError
from lastcli.families.base import Tensors
from lastcli.families.mapped import MAP_KEYS
from lastcli.families.mapped.axes import Axes, arranged_shape, parse_axes
from lastcli.families.mapped.expressions import Expression, parse
from lastcli.families.parts.leaves import canonical, in_running_order, is_of_optimizer

__all__ = ["Map", "Part", "parse_map"]


@dataclass(frozen=True)
class Part:
    """One tensor as the family sees it.

    Attributes:
        name: the family's full name of it.
        expression: of the file's tensors, by their full names.
        axes: None where they are the file's own.
    """

    name: str
    expression: Expression
    axes: Axes | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is a tensor of the file as it is."""
        return not self.expression.function and self.axes is None


@dataclass(frozen=True)
class Map:
    """What a description says.

    Attributes:
        layers: patterns of the layers' paths; empty: every path with all the tensors that are named.
        names: part → expression, by names relative to a layer.
        axes: part → axes.
    """

    layers: tuple[str, ...]
    names: Mapping[str, Expression]
    axes: Mapping[str, Axes]

    def document(self) -> dict[str, Any]:
        """As a description says it."""
        said: dict[str, Any] = {}
        if self.layers:
            said["layers"] = self.layers[0] if len(self.layers) == 1 else list(self.layers)
        if self.names:
            said["names"] = {part: str(expression) for part, expression in self.names.items()}
        return said | ({"axes": {part: list(axes) for part, axes in self.axes.items()}} if self.axes else {})

    def parts(self, tensors: Tensors) -> dict[str, Part]:
        """{the family's full name: part} of every part that the map renames or rearranges.

        Raises:
            UnsupportedModelError: no path is a layer, or a layer lacks a tensor that is named.
        """
        found: dict[str, Part] = {}
        below = self._layers(tensors)
        for prefix, own in below.items():
            for part in dict.fromkeys((*self.names, *self.axes)):
                expression = self.names.get(part, Expression(name=part))
                full: dict[str, str] = {}
                for name in expression.names:
                    if canonical(name) not in own:
                        some = ", ".join(list(own)[:8])
                        raise UnsupportedModelError(
                            f"The map takes {part} from {name}, which {prefix or 'the top of the file'} does not have "
                            f"(it has {some}); correct the map."
                        )
                    full[name] = own[canonical(name)]
                joined = _joined(prefix, part)
                found[joined] = Part(joined, expression.renamed(full), self.axes.get(part))
        return found

    def view(self, tensors: Tensors) -> dict[str, TensorInfo]:
        """The tensors as the family sees them; those that a part is made of are not there under their own names."""
        parts = self.parts(tensors)
        used = {name for part in parts.values() for name in part.expression.names}
        seen = {name: info for name, info in tensors.items() if name not in used and name not in parts}
        shapes = {name: (tuple(info.shape), info.dtype) for name, info in tensors.items()}
        for name, part in parts.items():
            shape, dtype = part.expression.shape_of(shapes)
            shape = shape if part.axes is None else arranged_shape(shape, part.axes, str(part.expression))
            own = tensors[part.expression.names[0]]
            count = 1
            for length in shape:
                count *= length
            seen[name] = TensorInfo(name, shape, dtype, count * own.nbytes // max(own.size, 1))
        return {name: seen[name] for name in in_running_order(seen)}

    def restricted(self, tensors: Collection[str]) -> Map:
        """Without what is said of tensors that are not there, as after a change of the family's form."""
        own = [canonical(name) for name in tensors]
        there = lambda name: any(path == canonical(name) or path.endswith(f"/{canonical(name)}") for path in own)  # noqa: E731
        names = {part: e for part, e in self.names.items() if all(map(there, e.names))}
        axes = {part: a for part, a in self.axes.items() if part in names or (part not in self.names and there(part))}
        return Map(self.layers, names, axes)

    def _layers(self, tensors: Tensors) -> dict[str, dict[str, str]]:
        """{path with its last separator: {path below it: full name}} of every layer.

        A pattern is the whole path, or where no path is that, its end: what a wrapper put before all names need not be
        said.
        """
        paths: dict[str, dict[str, str]] = {}
        for name in tensors:
            for cut in [0, *(match.end() for match in re.finditer(r"[/.]", name))]:
                paths.setdefault(name[:cut], {})[canonical(name[cut:])] = name
        wanted = {canonical(name) for expression in self.names.values() for name in expression.names}
        if self.layers:
            where = f"no path is {' or '.join(self.layers)}"
            found = _ending(paths, self.layers, "") or _ending(paths, self.layers, r"(?:.*/)?")
        else:
            where = f"no path has {', '.join(sorted(wanted))}"
            found = {prefix: own for prefix, own in paths.items() if wanted and wanted <= own.keys()}
        found = {prefix: own for prefix, own in found.items() if not is_of_optimizer(prefix)}
        if not found:
            raise UnsupportedModelError(f"The map finds no layer: {where}; correct the map's layers and names.")
        return {prefix: found[prefix] for prefix in in_running_order(found)}


def parse_map(said: Mapping[str, Any], where: str) -> Map | None:
    """The map of a description; None where it has none.

    Raises:
        InputError: it is not of the form that the module's docstring shows.
    """
    if not any(said.get(key) is not None for key in MAP_KEYS):
        return None
    layers, names, axes = (said.get(key) for key in MAP_KEYS)
    layers = [layers] if isinstance(layers, str) else layers if layers is not None else []
    if not isinstance(layers, list) or not all(isinstance(item, str) for item in layers):
        raise InputError(f"{where}: layers must be a path such as layers.*.seq, or a list of them.")
    for key, value in (("names", names), ("axes", axes)):
        if value is not None and not isinstance(value, Mapping):
            raise InputError(f"{where}: {key} must be a mapping of the family's part: the file's.")
    parts = {}
    for part, text in (names or {}).items():
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: names.{part} must be the name of a tensor, or a function of one.")
        parts[str(part)] = parse(text, f"{where}: names.{part}")
    arranged = {str(part): parse_axes(value, f"{where}: axes.{part}") for part, value in (axes or {}).items()}
    return Map(tuple(layers), parts, arranged)


def _ending(paths: Mapping[str, dict[str, str]], patterns: Sequence[str], before: str) -> dict[str, dict[str, str]]:
    """The paths that are one of the patterns with the expression `before` in front of it."""
    texts = ["/".join(re.escape(part).replace(r"\*", "[^/]*") for part in canonical(p).split("/")) for p in patterns]
    wanted = re.compile("|".join(f"(?:{before}{text})" for text in texts))
    return {prefix: own for prefix, own in paths.items() if wanted.fullmatch(canonical(prefix))}


def _joined(prefix: str, part: str) -> str:
    """A part's full name with the separator that its layer's path has."""
    return prefix + (part.replace("/", ".") if prefix.endswith(".") else part)
