"""Model families: the registry and the detection by tensor names.

Adding a family is a file of its own and one line here; docs/development.md shows one.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from lastcli.containers.base import TensorInfo
from lastcli.errors import UnsupportedModelError, UsageError
from lastcli.families.base import Family, Match
from lastcli.families.mapped import MAP_KEYS
from lastcli.families.refused import refusal

if TYPE_CHECKING:
    from lastcli.families.mapped.map import Map

__all__ = ["FAMILIES", "MAP_KEYS", "MODEL_TYPES", "detect", "family_named", "mapped", "read_config", "successor"]

# family name → (module, class). The order breaks ties of equally good matches.
FAMILIES: dict[str, tuple[str, str]] = {
    "event_ssm": ("lastcli.families.event_ssm.family", "EventSSM"),
    "s5": ("lastcli.families.s5.family", "S5"),
    "s5_pytorch": ("lastcli.families.s5_pytorch.family", "S5Pytorch"),
    "lru": ("lastcli.families.lru.family", "LRU"),
    "linoss": ("lastcli.families.linoss.family", "LinOSS"),
    "mega": ("lastcli.families.mega.family", "Mega"),
    "s4d": ("lastcli.families.s4.s4d", "S4D"),
    "s4": ("lastcli.families.s4.family", "S4"),
    "s4_dplr": ("lastcli.families.s4.dplr", "S4DPLR"),
    "dss": ("lastcli.families.s4.dss", "DSS"),
    "annotated_s4d": ("lastcli.families.annotated.family", "AnnotatedS4D"),
    "annotated_dss": ("lastcli.families.annotated.family", "AnnotatedDSS"),
    "annotated_s4": ("lastcli.families.annotated.family", "AnnotatedS4"),
    "mamba": ("lastcli.families.mamba.family", "Mamba"),
    "mamba2": ("lastcli.families.mamba.family", "Mamba2"),
    "complex_s4d": ("lastcli.families.complex_s4d.family", "ComplexS4D"),
    "attenuate": ("lastcli.families.attenuate.family", "Attenuate"),
}


# `model_type` in a transformers `config.json` → the family that reads it.
MODEL_TYPES = {"mega": "mega"}


def read_config(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a `config.json` of transformers says of a model that a family knows, in its own options; else None."""
    name = MODEL_TYPES.get(str(document.get("model_type")))
    return None if name is None else {"family": name, **family_named(name).read_config(document)}


@cache
def family_named(name: str) -> Family:
    """The family called `name`.

    Raises:
        UsageError: no such family; lists the known ones.
    """
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UsageError(f"There is no model family {name!r}; known families: {known}.")
    module, cls = FAMILIES[name]
    return getattr(importlib.import_module(module), cls)()


def mapped(family: Family, map_: Map | None) -> Family:
    """The family on files that a map describes; itself where there is none."""
    if map_ is None:
        return family
    from lastcli.families.mapped.family import Mapped

    return Mapped(family, map_)


def successor(family: Family, name: str, tensors: Collection[str]) -> Family:
    """The family called `name` on a file with these tensors that was made from one of `family`: by the same map.

    Raises:
        UsageError: no such family.
    """
    from lastcli.families.mapped.map import parse_map

    said = family.described(tensors)
    return mapped(family_named(name), parse_map(said, "the map") if said else None)


def detect(tensors: Mapping[str, TensorInfo]) -> Family:
    """The family whose names explain most of the checkpoint.

    Raises:
        UnsupportedModelError: none fits; names the nearest family and the tensors that were missing. Or the model is
            one of those that cannot be reduced; says why.
    """
    why = refusal(tensors)
    if why is not None:
        raise UnsupportedModelError(why)
    matches = [family_named(name).match(tensors) for name in FAMILIES]
    complete = [match for match in matches if match.complete]
    if complete:
        return family_named(max(complete, key=lambda match: match.found).family)
    raise UnsupportedModelError(_why_not(matches, tensors))


def _why_not(matches: list[Match], tensors: Mapping[str, TensorInfo]) -> str:
    nearest = max(matches, key=lambda match: match.found, default=None)
    if nearest is None or nearest.found == 0:
        states = _like_states(tensors)
        some = states or f"first: {', '.join(list(tensors)[:3]) or 'none'}"
        return (
            f"No state space layer was recognised among {len(tensors)} tensors ({some}); "
            f"known families: {', '.join(FAMILIES)}{'; ' + _SUGGEST if states else ''}."
        )
    missing = ", ".join(nearest.missing[:4]) + (" and more" if len(nearest.missing) > 4 else "")
    states = _like_states(tensors)
    instead = f" ({states}; {_SUGGEST})" if states else ""
    return f"The nearest family is {nearest.family}, but these tensors are missing: {missing}{instead}."


_SUGGEST = "if it is one of them under other names, `last inspect FILE --suggest` begins a map"


def _like_states(tensors: Mapping[str, TensorInfo]) -> str:
    """The tensors that look like a state space layer, those of the first path, as a clause; empty where none do."""
    from lastcli.families.mapped.vocabulary import looks_like_states

    found = looks_like_states(tensors)
    if not found:
        return ""
    names = [
        f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}" for name in next(iter(found.values())).values()
    ]
    more = f", and {len(found) - 1} more such path{'s' if len(found) > 2 else ''}" if len(found) > 1 else ""
    return f"these look like one: {', '.join(names[:8])}{' and more' if len(names) > 8 else ''}{more}"
