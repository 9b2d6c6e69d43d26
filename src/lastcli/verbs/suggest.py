"""`inspect --suggest`: a description of the model to begin with. Imports no JAX."""

from __future__ import annotations

from collections.abc import Mapping

from lastcli import containers
from lastcli.containers.base import TensorInfo
from lastcli.errors import LastError, UnsupportedModelError, UsageError
from lastcli.families import FAMILIES
from lastcli.families.refused import refusal
from lastcli.results import LikelyTensor, SuggestResult
from lastcli.verbs.shared.session import Session

__all__ = ["suggest"]


def suggest(session: Session) -> SuggestResult:
    """The description of a model that is known, with what was assumed; a first map of one that is not.

    Raises:
        UnsupportedModelError: the model is one that cannot be reduced, or no tensor looks like a state space layer.
    """
    path = session.source.path
    try:
        checkpoint = session.checkpoint
    except UnsupportedModelError as error:
        return _first_map(session, error)
    except UsageError as error:
        if not _undecided(session):
            raise
        return _first_map(session, error)
    settings = {key: setting for key, setting in checkpoint.settings.items() if setting.source != "idle"}
    assumed = ", ".join(key for key, setting in settings.items() if setting.source == "assumed")
    return SuggestResult(
        checkpoint=str(path),
        description={
            "family": checkpoint.family.name,
            **checkpoint.family.described(checkpoint.reader.tensors),
            **{key: setting.value for key, setting in settings.items()},
        },
        check=f"assumed, since nothing says otherwise: {assumed}" if assumed else "",
    )


def _undecided(session: Session) -> bool:
    """Whether the file holds several dictionaries of tensors, and none that has a layer of a known family."""
    try:
        with containers.open_reader(session.source.path, name=session.plan.name, is_model=session.is_model):
            return False
    except UsageError:
        return True


def _first_map(session: Session, why: LastError) -> SuggestResult:
    from lastcli.families.mapped.suggest import suggest as by_templates

    def is_likely(tensors: Mapping[str, TensorInfo]) -> bool:
        return session.is_model(tensors) or bool(by_templates(tensors).tensors)

    with containers.open_reader(session.source.path, name=session.plan.name, is_model=is_likely) as reader:
        found = by_templates(reader.tensors)
        if not found.tensors or refusal(reader.tensors) is not None:
            raise why
        tensors = tuple(
            LikelyTensor(name=name, dtype=reader.tensors[name].dtype, shape=tuple(reader.tensors[name].shape))
            for own in found.tensors.values()
            for name in own.values()
        )
    notes = () if found.description else (f"No family fits by itself; known families: {', '.join(FAMILIES)}.",)
    return SuggestResult(
        checkpoint=str(session.source.path),
        description=found.description,
        check=found.check,
        tensors=tensors,
        notes=notes,
    )
