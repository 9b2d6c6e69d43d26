"""From a path to a `Checkpoint`: which model of the file is meant, which family understands it, what is said of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lastcli import containers, families
from lastcli.containers.base import Reader, TensorInfo
from lastcli.containers.container import IsModel
from lastcli.errors import UnsupportedModelError
from lastcli.families.equinox.leaves import names_by_shape
from lastcli.model.checkpoint import Checkpoint
from lastcli.model.description import Description, gather, inside_of, resolve, settings_of
from lastcli.model.view import holds_model, look, without_holder, without_second_names

__all__ = ["model_predicate", "open_checkpoint"]


def open_checkpoint(
    path: str | Path,
    *,
    flags: Mapping[str, Any] | None = None,
    model_config: Path | None = None,
    recipe: Mapping[str, Any] | None = None,
    name: str | None = None,
    like: Sequence[TensorInfo] | None = None,
    keep_others: bool = False,
    own_description: bool = False,
) -> Checkpoint:
    """Open a checkpoint, find its family and resolve its description; no weights are decoded.

    Args:
        path: a file or folder of any supported container.
        flags: option → value, as `--set`; the strongest source.
        model_config: a YAML or JSON description of the model.
        recipe: the `model:` part of a recipe.
        name: which model, where a file holds several.
        like: the leaves of the module that an equinox file was saved from, in order; it has no names itself.
        keep_others: whether the other models are carried as they are; else they are left out.
        own_description: what the file says of itself is all that counts, where it names a family.

    Raises:
        InputError: the file is missing or damaged, or its description is wrong.
        UnsupportedModelError: no family fits; names the nearest.
        UsageError: a flag names an unknown option or family.
    """
    path = Path(path)
    said = functools.partial(gather, path, flags=flags or {}, model_config=model_config, recipe=recipe or {})
    is_model = model_predicate(path, flags=flags, model_config=model_config, recipe=recipe)
    reader = _named(containers.open_reader(path, name=name, like=like, keep_others=keep_others, is_model=is_model))
    try:
        description = said(reader.metadata, opened=reader.path)
        if own_description and description.says_itself:
            description = description.of_the_file()
        description = dataclasses.replace(description, settings=settings_of(reader))
        inside = inside_of({**reader.settings, **reader.extras})
        if description.upstream is None and inside is not None:
            document = (f"{path}: {inside[0]}", inside[1])
            description = dataclasses.replace(description, upstream=document)
        named = description.family
        map_ = description.map
        view = look(reader, keep_others=keep_others)
        seen, _ = view.naming.view(reader.tensors)
        found = families.family_named(named) if named else families.detect(seen)
        family = view.over(families.mapped(found, map_))
        if named:
            match = family.match(reader.tensors)
            if not match.complete:
                missing = ", ".join(match.missing[:4]) or "all of its layers"
                by_map = " by its map" if map_ is not None else ""
                raise UnsupportedModelError(f"{path}: described as {named}{by_map}, but it lacks {missing}.")
        if map_ is None:
            view = without_holder(view, reader, found, lambda family: resolve(family, reader.tensors, description))
            family = view.over(found)
        settings = resolve(family, reader.tensors, description)
        config = {key: setting.value for key, setting in settings.items()}
        single = without_second_names(view, reader, family, config) if map_ is None else view
        if single is not view:
            single = without_holder(single, reader, found, lambda family: resolve(family, reader.tensors, description))
            family = single.over(found)
            settings = resolve(family, reader.tensors, description)
        return Checkpoint(reader, family, settings, description, single)
    except BaseException:
        reader.close()
        raise


def model_predicate(
    path: str | Path,
    *,
    flags: Mapping[str, Any] | None = None,
    model_config: Path | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> IsModel:
    """What tells the model from other tensors of the file at `path`, for `open_reader`: see `view.holds_model`."""

    @functools.cache
    def described() -> Description:
        return gather(Path(path), {}, flags=flags or {}, model_config=model_config, recipe=recipe or {})

    return lambda tensors: holds_model(tensors, described)


def _named(reader: Reader) -> Reader:
    """A reader whose tensors have names: those that a family knows by the shapes of leaves without any.

    Raises:
        UnsupportedModelError: the shapes are not clear.
    """
    if not reader.unnamed:
        return reader
    reader.close()
    names = names_by_shape(reader.unnamed, reader.extras)
    if names is None:
        raise UnsupportedModelError(
            f"{reader.path}: the {len(reader.unnamed)} leaves of an equinox file have no names, and no family is clear "
            "from their shapes; give the module that was saved with --like module:function."
        )
    like = [dataclasses.replace(info, name=name) for name, info in zip(names, reader.unnamed, strict=True)]
    return containers.open_reader(reader.path, like=like)
