"""Reading equinox files: the headers of the arrays first, an array when it is asked for. equinox is not needed.

`equinox.tree_serialise_leaves` writes the leaves of a module in the order of its tree, each as `numpy.save` does, and
nothing else: no names. Programs put a line of JSON with the settings before them, as equinox's documentation shows. The
names come from a sidecar that `last` wrote, or from a skeleton (`--like`); without either they are numbers, and
`Reader.unnamed` has the leaves for whoever knows a family by its shapes.

An array without axes of Python's bool, int, float or complex is a number of the module and no tensor: `extras`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.base import Reader, TensorInfo
from lastcli.containers.dtypes import EXTENDED, dtype_of
from lastcli.containers.equinox.npy import MAGIC, Header, parse, prefix_length
from lastcli.containers.extras import STRUCTURE_KEY
from lastcli.containers.inputs import RandomAccess, is_unicode, shown
from lastcli.containers.optimizer import drop_optimizer
from lastcli.containers.sidecar import sidecar_metadata
from lastcli.containers.structure import merged, of, take_metadata
from lastcli.containers.tree import build, flatten
from lastcli.errors import InputError, OutputError
from lastcli.mappings import parse_json

__all__ = ["EquinoxReader"]

_MAX_LINE = 2**20
_NUMBERS = {"bool", "int64", "float64", "complex128"}


@dataclass(frozen=True)
class _Leaf:
    header: Header
    offset: int


class EquinoxReader(Reader):
    """One file of leaves."""

    def __init__(
        self, path: Path, *, like: Sequence[TensorInfo] | None = None, form: Mapping[str, Any] | None = None
    ) -> None:
        """Read every header and name the leaves.

        Args:
            path: the file.
            like: the leaves of the module that it was saved from, in order; what a sidecar says of names comes first.
            form: what a sidecar would say of names, order and dtypes (`structure`), instead of one.

        Raises:
            InputError: the file is missing or damaged, or a skeleton or sidecar is not that of this file.
        """
        where = shown(path, 1000)
        self._file = RandomAccess(path)
        try:
            metadata, more = take_metadata({} if form is not None else sidecar_metadata(path, "equinox"), where)
            form = dict(form if form is not None else of(more).get("equinox", {}))
            line, leaves = _walk(self._file, form.get("dtypes", {}), form.get("names", []), where)
            names = _names(leaves, form, like, where)
            scalars = set(form["scalars"]) if "scalars" in form else None
            infos = {
                name: TensorInfo(name, leaf.header.shape, leaf.header.dtype, leaf.header.nbytes)
                for name, leaf in zip(names, leaves, strict=True)
            }
            numbers = {
                name: self._load(leaf, name).item()
                for name, leaf in zip(names, leaves, strict=True)
                if _is_number(infos[name]) and (scalars is None or name in scalars)
            }
            kept, dropped = _without_optimizer(infos, numbers)
            own: dict[str, Any] = {"names": kept, "scalars": [name for name in kept if name in numbers]}
            own |= {"header": line} if line is not None else {}
            dtypes = {name: infos[name].dtype for name in kept if infos[name].dtype in EXTENDED}
            own |= {"dtypes": dtypes} if dtypes else {}
            extras = {name: value for name, value in numbers.items() if name in kept}
            tensors = {name: infos[name] for name in kept if name not in numbers}
            super().__init__(
                path,
                "equinox",
                tensors,
                metadata,
                merged({**extras, STRUCTURE_KEY: {"equinox": own}}, more),
                dropped,
            )
        except BaseException:
            self._file.close()
            raise
        self._leaves = dict(zip(names, leaves, strict=True))
        if like is None and "names" not in form:
            self.unnamed = tuple(infos.values())

    def load(self, name: str) -> np.ndarray:
        """See `Reader.load`."""
        if name not in self.tensors:
            raise KeyError(name)
        return self._load(self._leaves[name], name)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _load(self, leaf: _Leaf, name: str) -> np.ndarray:
        header = leaf.header
        shape = header.shape[::-1] if header.fortran else header.shape
        array = self._file.read_array(leaf.offset, shape, dtype_of(header.dtype), f"leaf '{shown(name)}'")
        return np.asarray(array.T, order="C") if header.fortran else array


def _walk(
    file: RandomAccess, dtypes: Mapping[str, str], names: Sequence[str], where: str
) -> tuple[str | None, list[_Leaf]]:
    """The line before the leaves, or None, and the leaves, every claim held against the file."""
    if file.size == 0:
        raise InputError(f"{where} is empty; copy it again.")
    line, at = _first_line(file, where)
    leaves: list[_Leaf] = []
    while at < file.size:
        what = f"{where}: leaf {len(leaves)}"
        said = dtypes.get(names[len(leaves)]) if len(leaves) < len(names) else None
        try:
            length = prefix_length(file.read(at, min(12, file.size - at), "a leaf"))
            header = parse(file.read(at, length, "the header of a leaf"), said)
        except ValueError as error:
            raise InputError(f"{what} (byte {at:,}) is {error}; the file is damaged or no equinox file.") from error
        if header.nbytes > file.size - at - length:
            raise InputError(
                f"{what} of shape {shown(header.shape)} and dtype {header.dtype} needs {header.nbytes:,} bytes, more "
                "than the file has; it is cut short, copy it again."
            )
        leaves.append(_Leaf(header, at + length))
        at += length + header.nbytes
    return line, leaves


def _first_line(file: RandomAccess, where: str) -> tuple[str | None, int]:
    """The line of text before the first array, and where that begins."""
    start = file.read(0, min(file.size, _MAX_LINE), "its beginning")
    if start.startswith(MAGIC):
        return None, 0
    line, end, rest = start.partition(b"\n")
    if not end or not rest.startswith(MAGIC[: len(rest)] or MAGIC):
        raise InputError(
            f"{where} is no equinox file: neither it nor what follows its first line is an array in NumPy's format."
        )
    # the settings as JSON; whatever they are, they are kept as they stand
    parse_json(line, f"{where}: the first line")
    return line.decode(), len(line) + 1


def _names(
    leaves: Sequence[_Leaf], form: Mapping[str, Any], like: Sequence[TensorInfo] | None, where: str
) -> list[str]:
    """The names of the leaves in order."""
    if "names" in form:
        if len(form["names"]) != len(leaves):
            raise InputError(
                f"{where} has {len(leaves)} leaves, but its description names {len(form['names'])}; the two do not "
                "belong together."
            )
        return list(form["names"])
    if like is None:
        return [f"leaves/{index}" for index in range(len(leaves))]
    names = [info.name for info in like]
    if len(names) != len(leaves):
        raise InputError(
            f"{where} has {len(leaves)} leaves, but the skeleton {len(names)}; give the module it was saved from."
        )
    for info, leaf in zip(like, leaves):
        if leaf.header.shape != info.shape:
            raise InputError(
                f"{where}: leaf '{shown(info.name)}' has shape {leaf.header.shape}, but {info.shape} in the skeleton; "
                "give the module it was saved from."
            )
    if len(set(names)) != len(names) or not all(name and is_unicode(name) for name in names):
        raise InputError(f"{where}: two leaves of the skeleton have the same name, or one has none.")
    return names


def _is_number(info: TensorInfo) -> bool:
    return info.shape == () and info.dtype in _NUMBERS


def _without_optimizer(
    infos: Mapping[str, TensorInfo], numbers: Mapping[str, Any]
) -> tuple[list[str], tuple[str, ...]]:
    """The names that are carried on, and a sentence for each optimizer state among the others."""
    leaves = {name: replace(info, name=name) for name, info in infos.items()}
    try:
        tree = build(leaves, {}, "")
    except OutputError:
        # names that make no tree: nothing is recognised in them
        return list(infos), ()
    dropped = drop_optimizer(tree, lambda leaf: leaf if isinstance(leaf, TensorInfo) else None)
    if not dropped:
        return list(infos), ()
    left = set(flatten(tree, lambda leaf: isinstance(leaf, TensorInfo), "").leaves)
    return [name for name in infos if name in left], dropped
