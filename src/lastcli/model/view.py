"""What of an open file is the model: chosen by name, freed of wrappers, every module once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lastcli import families
from lastcli.containers.base import MODEL_KEY, Reader
from lastcli.containers.inputs import shown
from lastcli.errors import LastError, UnsupportedModelError, UsageError
from lastcli.families.base import Family, Tensors
from lastcli.model.aliases import Aliases, find_aliases
from lastcli.model.copies import Chosen, choose
from lastcli.model.description import Description, Setting
from lastcli.model.named import Named
from lastcli.model.naming import Naming

__all__ = ["View", "holds_model", "look", "without_holder", "without_second_names"]


@dataclass(frozen=True)
class View:
    """What families see of a file, and what stands beside it.

    Attributes:
        name: what `--name` calls the model, None where the file holds no other.
        at: the path at which it was found by that name.
        naming: from the names of the file to those that families see.
        aliases: the second names of its modules.
        others: of every other model that is carried as it is, its tensors.
    """

    name: str | None = None
    at: tuple[str, ...] = ()
    naming: Naming = field(default_factory=Naming)
    aliases: Aliases = field(default_factory=Aliases)
    others: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def tensors_of_others(self) -> frozenset[str]:
        """The tensors of all other models."""
        return frozenset().union(*self.others.values())

    def over(self, family: Family) -> Family:
        """A family asked in the names of the file; a map has the file's names already."""
        return family if family.in_names_of_file else Named(family, self.naming, self.aliases.repeated)


def look(reader: Reader, *, keep_others: bool = False) -> View:
    """The model in a file that is meant; other models are left out of `reader` unless they are to be kept.

    Raises:
        UsageError: there are several and none is named, or the named one is not there.
    """
    own = {name: info for name, info in reader.tensors.items() if name not in reader.beside}
    chosen = _choose(reader, own, shown(reader.path, 1000))
    others = {name: tensors for name, tensors in chosen.others.items() if tensors}
    if not keep_others:
        for name in list(others):
            reader.leave_model(name, others.pop(name))
    others |= reader.others
    naming = Naming.of(reader.tensors, reader.beside.union(*others.values()), chosen.replaced, chosen.at)
    name = "/".join(part for part in (reader.model, chosen.name) if part)
    return View(name or None, chosen.at, naming, others=others)


def _choose(reader: Reader, own: Tensors, where: str) -> Chosen:
    """What the user asks for; else the model that the file was written from, as it says itself."""
    recorded = reader.metadata.get(MODEL_KEY)
    if reader.asked is None and recorded is not None:
        try:
            return choose(own, recorded.removeprefix(f"{reader.model}/"), _holds_layers, where)
        except UsageError:
            pass  # it was alone in the file that was written
    return choose(own, reader.asked, _holds_layers, where)


def holds_model(tensors: Tensors, describe: Callable[[], Description]) -> bool:
    """Whether a dictionary of a file holds a state space layer of a known family, or a model that is refused by name.

    Args:
        tensors: as the container names them.
        describe: what is said of the model; a family that it names is the only one asked.
    """
    description = describe()
    if description.map is not None and description.family:
        family = families.mapped(families.family_named(description.family), description.map)
        try:
            return bool(family.match(tensors).layers)
        except UnsupportedModelError:
            return False  # the map finds nothing here: other tensors of the file are the model
    seen, _ = Naming.of(tensors).view(tensors)
    if description.family:
        return bool(families.family_named(description.family).match(seen).layers)
    return _holds_layers(seen) or families.refusal(seen) is not None


def _holds_layers(tensors: Tensors) -> bool:
    return any(families.family_named(name).match(tensors).layers for name in families.FAMILIES)


def without_second_names(view: View, reader: Reader, family: Family, config: Mapping[str, Any]) -> View:
    """The view once the layers are known: a module under two names is seen once."""
    own = {name: info for name, info in reader.tensors.items() if view.naming.sees(name)}
    aliases = find_aliases(reader, own, view.over(family).layers(reader.tensors, config))
    if not aliases.names:
        return view
    hidden = view.naming.hidden | aliases.hidden
    naming = dataclasses.replace(
        Naming.of(reader.tensors, hidden, view.naming.replaced, view.at),
        doubled=aliases.modules,
        known=frozenset(reader.tensors),
    )
    return dataclasses.replace(view, naming=naming, aliases=aliases)


def without_holder(
    view: View, reader: Reader, family: Family, resolved: Callable[[Family], Mapping[str, Setting]]
) -> View:
    """The view without a module of any name that holds all tensors, where the model around the layers needs that.

    Args:
        resolved: the options of a family that is asked in the names of a view.
    """
    deeper = list(view.naming.deeper(reader.tensors))
    if deeper and not _around(view, reader, family, resolved):
        for naming in deeper:
            other = dataclasses.replace(view, naming=naming)
            if _around(other, reader, family, resolved):
                return other
    return view


def _around(view: View, reader: Reader, family: Family, resolved: Callable[[Family], Mapping[str, Setting]]) -> bool:
    """Whether the model around the layers is known by its names."""
    asked = view.over(family)
    if not asked.match(reader.tensors).complete:
        return False
    try:
        config = {key: setting.value for key, setting in resolved(asked).items()}
        layers = asked.layers(reader.tensors, config)
        return asked.forward(reader.tensors, config, layers) is not None
    except LastError:
        return False
