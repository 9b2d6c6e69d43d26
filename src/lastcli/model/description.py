"""The model description: which options a family runs with, and where each value came from.

What tensors cannot say (the factor 2, the discretisation, clip_eigs, ...) comes, strongest first, from a flag, the
recipe, the file's own metadata, a sidecar, the tensors, or is assumed. A value that contradicts what the tensors
prove is an error, not a choice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lastcli.containers import DESCRIPTION_KEY, HOLDERS, Reader
from lastcli.errors import InputError, LastError, UsageError
from lastcli.families.base import Family, Tensors
from lastcli.families.mapped import MAP_KEYS
from lastcli.mappings import convert, load_mapping, parse_mapping, suggestion
from lastcli.model.hyperparameters import understand
from lastcli.model.sidecar import RECORD_KEY, Beside, files_beside

if TYPE_CHECKING:
    from lastcli.families.mapped.map import Map

__all__ = [
    "PROVENANCE_KEY",
    "Description",
    "Setting",
    "gather",
    "inside_of",
    "option_value",
    "parse_settings",
    "resolve",
    "settings_of",
    "upstream_of",
]

PROVENANCE_KEY = RECORD_KEY


class Setting(NamedTuple):
    """A value and its source: one of flag, recipe, file, sidecar, tensors, assumed, idle.

    Idle are the options that say nothing about the checkpoint (`Family.idle`).
    """

    value: Any
    source: str


@dataclass(frozen=True)
class Description:
    """What is said about a checkpoint before its family interprets it.

    Attributes:
        layers: (source, where, mapping), strongest first.
        provenance: what an earlier `last prune` wrote about itself, or an empty mapping.
        beside: the files beside the checkpoint.
        upstream: (where, document) of the `config.json` of another program, which a family may understand.
        settings: what the file says of the run that made it (`Reader.settings`, and leaves of the same names).
    """

    layers: tuple[tuple[str, str, Mapping[str, Any]], ...]
    provenance: Mapping[str, Any]
    beside: Beside = Beside()
    upstream: tuple[str, Mapping[str, Any]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str | None:
        """The family that the strongest source names."""
        for _, _, mapping in self.layers:
            if "family" in mapping:
                return str(mapping["family"])
        return None

    @property
    def map(self) -> Map | None:
        """The map of the strongest source that has one.

        Raises:
            UsageError: a flag says something that is no map.
            InputError: a file does, or no source names the family that it could be a map of.
        """
        for _, where, mapping in self.layers:
            if not mapping.keys() & set(MAP_KEYS):
                continue
            from lastcli.families.mapped.map import parse_map

            try:
                found = parse_map(mapping, where)
            except InputError as error:
                raise UsageError(str(error)) if where == "--set" else error from None
            if found is not None and self.family is None:
                raise InputError(f"{where}: a map needs the family that it is a map of; add family: NAME.")
            if found is not None:
                return found
        return None

    @property
    def says_itself(self) -> bool:
        """Whether the file (or its sidecar) names a family, as everything that `last` writes does."""
        return any(source in ("file", "sidecar") and "family" in mapping for source, _, mapping in self.layers)

    def of_the_file(self) -> Description:
        """Without what flags and recipe say."""
        own = tuple(layer for layer in self.layers if layer[0] in ("file", "sidecar"))
        return replace(self, layers=own)


def parse_settings(items: Iterable[str]) -> dict[str, str]:
    """`key=value` pairs of `--set`.

    Raises:
        UsageError: an item without `=`, or one key given twice.
    """
    settings: dict[str, str] = {}
    for item in items:
        key, sign, value = item.partition("=")
        key = key.strip()
        if not sign or not key:
            raise UsageError(f"--set {item!r} is not of the form key=value.")
        if key in settings:
            raise UsageError(f"--set names {key!r} twice; keep one.")
        settings[key] = value.strip()
    return settings


def upstream_of(beside: Beside) -> tuple[str, Mapping[str, Any]] | None:
    """The `config.json` that another program wrote beside the tensors, with its place; None where there is none."""
    return next(((str(file), said) for file, said in beside.unused.items() if file.name == "config.json"), None)


def settings_of(reader: Reader) -> dict[str, Any]:
    """What a file says of the run that made it: numbers and texts by path."""
    plain = {
        name: value
        for name, value in reader.extras.items()
        if name.partition("/")[0] in HOLDERS and isinstance(value, bool | int | float | str)
    }
    return {**reader.settings, **plain}


def inside_of(extras: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The configuration that training code put into a file beside the tensors, with the path it has there."""
    for path in HOLDERS:
        found = {key.removeprefix(f"{path}/"): value for key, value in extras.items() if key.startswith(f"{path}/")}
        if found:
            return path, found
    return None


def gather(
    path: Path,
    metadata: Mapping[str, str],
    *,
    flags: Mapping[str, Any],
    model_config: Path | None,
    recipe: Mapping[str, Any],
    opened: Path | None = None,
) -> Description:
    """Collect what flags, recipe, file and sidecar say about the checkpoint at `path`.

    Args:
        path: as the user named it.
        metadata: of the file.
        flags: option → value.
        model_config: a description file.
        recipe: the `model:` part of a recipe.
        opened: the file that was opened, where `path` is a folder that holds it.

    Raises:
        InputError: a description file is damaged.
    """
    layers: list[tuple[str, str, Mapping[str, Any]]] = [("flag", "--set", dict(flags))]
    if model_config is not None:
        layers.append(("flag", str(model_config), load_mapping(model_config)))
    layers.append(("recipe", "the recipe", dict(recipe)))
    if DESCRIPTION_KEY in metadata:
        where = f"{path}: metadata {DESCRIPTION_KEY}"
        layers.append(("file", where, parse_mapping(metadata[DESCRIPTION_KEY], where, is_json=True)))
    beside = files_beside(path, path if opened is None else opened)
    if beside.path is not None:
        layers.append(("sidecar", str(beside.path), beside.said))
    provenance: Mapping[str, Any] = {}
    cleaned: list[tuple[str, str, Mapping[str, Any]]] = []
    for source, where, mapping in layers:
        rest = {key: value for key, value in mapping.items() if key != PROVENANCE_KEY}
        found = mapping.get(PROVENANCE_KEY)
        if isinstance(found, Mapping) and not provenance and source in ("file", "sidecar"):
            _check_record(found, where)
            provenance = {key: value for key, value in found.items() if key != "metadata"}
        cleaned.append((source, where, rest))
    return Description(tuple(cleaned), provenance, beside, upstream_of(beside))


def _check_record(record: Mapping[str, Any], where: str) -> None:
    """What an earlier `last prune` wrote about itself, as far as it is taken apart.

    Raises:
        InputError: a list is something else.
    """
    for key in ("history", "layers"):
        value = record.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise InputError(f"{where}: {PROVENANCE_KEY}.{key} must be a list of mappings; the description is damaged.")


def resolve(family: Family, tensors: Tensors, description: Description) -> dict[str, Setting]:
    """Every option of the family with its value and source.

    Raises:
        UsageError: a flag names an unknown option, one without a meaning here, or a value of the wrong kind.
        InputError: a file does, or it contradicts what the tensors prove.
    """
    options = {option.key: option for option in family.options}
    settings: dict[str, Setting] = {}
    proven = family.infer(tensors)
    idle = family.idle(tensors) - proven.keys()
    said = list(description.layers)
    if description.upstream is not None:
        where, document = description.upstream
        said.append(("sidecar" if where.endswith("config.json") else "file", where, family.upstream(document)))
    for source, where, mapping in said:
        wrong: type[LastError] = UsageError if where == "--set" else InputError
        for key, raw in mapping.items():
            if key == "family" or key in MAP_KEYS or key in settings:
                continue
            if key not in options and source in ("file", "sidecar") and where.endswith("config.json"):
                continue
            value = option_value(family, key, raw, where, wrong)
            if key in proven and proven[key] != value and value is not None:
                raise wrong(f"{where}: {key} is {value!r}, but the tensors show {proven[key]!r}; correct or drop it.")
            if key in idle and where == "--set" and value != options[key].default:
                raise wrong(
                    f"{where}: {key} says nothing about this checkpoint, whose model has no such choice; drop it."
                )
            settings[key] = Setting(value, "idle" if key in idle else source)
    inside = understand(family, description.settings, {*settings, *idle}, proven)
    settings |= {key: Setting(value, "file") for key, (value, _) in inside.values.items()}
    for key, option in options.items():
        if key not in settings:
            kind = "idle" if key in idle else "assumed"
            settings[key] = Setting(proven[key], "tensors") if key in proven else Setting(option.default, kind)
    settings |= _settled(family, tensors, settings)
    return {option.key: settings[option.key] for option in family.options}


def option_value(family: Family, key: str, raw: Any, where: str, wrong: type[LastError] = InputError) -> Any:
    """The value of a family's option as somebody wrote it; `where` names the place in messages.

    Raises:
        LastError: of the class `wrong`: no such option, or no such value.
    """
    option = next((option for option in family.options if option.key == key), None)
    if option is None:
        known = [option.key for option in family.options]
        raise wrong(f"{where}: {family.name} has no option {key!r}.{suggestion(key, known)}")
    value = None if raw is None else convert(raw, option.kind, f"{where}: {key}", wrong)
    if option.choices and value not in option.choices:
        allowed = ", ".join(str(choice) for choice in option.choices)
        raise wrong(f"{where}: {key} is {value!r}; {family.name} knows {allowed}.")
    return value


def _settled(family: Family, tensors: Tensors, settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """What took the place of every "auto": a written file and a reader see the value that counts, not the word."""
    automatic = [key for key, setting in settings.items() if setting.value == "auto" and setting.source != "idle"]
    if not automatic:
        return {}
    known = family.settled(tensors, {key: setting.value for key, setting in settings.items()})
    return {key: Setting(*known[key]) if key in known else Setting("auto", "idle") for key in automatic}


def to_json(family: str, config: Mapping[str, Any], provenance: Mapping[str, Any] | None = None) -> str:
    """The description as it is written into metadata and sidecars."""
    document: dict[str, Any] = {"family": family, **config}
    if provenance:
        document[PROVENANCE_KEY] = dict(provenance)
    return json.dumps(document)
