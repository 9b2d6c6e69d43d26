"""`convert`: one checkpoint in another container, or an exact change of family."""

from __future__ import annotations

from pathlib import Path

from lastcli import containers, families
from lastcli.containers.base import Reader, TensorSource
from lastcli.engine.system import diagonal
from lastcli.errors import UnsupportedModelError
from lastcli.families.conversion import proven_conversion
from lastcli.model import description
from lastcli.model.checkpoint import Checkpoint
from lastcli.model.view import View, look
from lastcli.results import ConvertResult
from lastcli.verbs.shared.rebuilding import changed_sources, companions_brought, in_memory
from lastcli.verbs.shared.session import Session
from lastcli.verbs.shared.upstream_config import config_text

__all__ = ["convert"]


def convert(
    session: Session, out: Path, *, to_family: str | None = None, force: bool = False, shard_bytes: int | None = None
) -> ConvertResult:
    """Write the checkpoint into the container that `out`'s suffix names; nothing is lost.

    A file whose family is not known is still converted; its tensors, metadata and other leaves need no family.

    Raises:
        OutputError: `out` exists without force, is the input, or cannot be written.
        UnsupportedModelError: the family has no exact conversion to `to_family`, or storage would spoil it.
    """
    path = session.source.path
    containers.check_output(out, inputs=[path], shard_bytes=shard_bytes, force=force)
    try:
        checkpoint: Checkpoint | None = session.checkpoint
    except UnsupportedModelError:
        if to_family is not None:
            raise
        checkpoint = None
    reader, view = (checkpoint.reader, checkpoint.view) if checkpoint is not None else _unknown(session)
    brought = companions_brought(reader) if to_family is None else []
    containers.check_output(out, inputs=[path], shard_bytes=shard_bytes, force=force, companions=brought)
    metadata = dict(reader.metadata)
    folder = reader.path if reader.path.is_dir() else reader.path.parent
    if view.name is not None:
        metadata[containers.MODEL_KEY] = view.name
    family_after = checkpoint.family.name if checkpoint is not None else None
    notes: tuple[str, ...] = ()
    if checkpoint is not None and to_family is not None and to_family != checkpoint.family.name:
        changes, config = checkpoint.family.convert(reader.tensors, checkpoint.config, checkpoint.read, to_family)
        sources = changed_sources(checkpoint, in_memory(changes))
        family_after = str(config.pop("family", to_family))
        new = {source.info.name: source for source in sources}
        error, allowed = proven_conversion(
            [diagonal(system) for system in checkpoint.systems],
            checkpoint.view.over(families.successor(checkpoint.family, family_after, new)),
            {name: source.info for name, source in new.items()},
            config,
            lambda name: new[name].load(),
        )
        notes = (f"The largest error of a kernel after storage is {error:.1e} of its norm ({allowed:.1e} is allowed).",)
        config = checkpoint.without_idle(config) | checkpoint.family.described(new)
        metadata[containers.DESCRIPTION_KEY] = description.to_json(family_after, config)
    else:
        sources = tuple(TensorSource.copied(reader, name) for name in reader.tensors)
        if checkpoint is not None:
            metadata[containers.DESCRIPTION_KEY] = description.to_json(
                checkpoint.family.name, _known(checkpoint), checkpoint.provenance
            )
    receipt = containers.write(
        out,
        sources,
        metadata=metadata,
        extras=reader.extras,
        force=force,
        template=reader,
        shard_bytes=shard_bytes,
        companions=containers.companions_of(folder) if reader.kind == "safetensors" and to_family is None else None,
        config=None if checkpoint is None or family_after != checkpoint.family.name else config_text(checkpoint),
    )
    return ConvertResult(
        checkpoint=str(path),
        out=str(receipt.path),
        container_before=reader.kind,
        container_after=receipt.kind,
        tensors=len(sources),
        bytes_before=containers.stored_bytes(path),
        bytes_after=receipt.bytes,
        family=checkpoint.family.name if checkpoint is not None else None,
        family_after=family_after,
        notes=(*reader.dropped, *notes),
    )


def _unknown(session: Session) -> tuple[Reader, View]:
    """The file of a family that is not known."""
    plan = session.plan
    reader = containers.open_reader(
        session.source.path,
        name=plan.name,
        like=session.skeleton,
        keep_others=plan.keep_others,
        is_model=session.is_model,
    )
    return reader, look(reader, keep_others=plan.keep_others)


def _known(checkpoint: Checkpoint) -> dict[str, object]:
    """The description without what was only assumed: a conversion must not turn a guess into a statement."""
    said = {key: s.value for key, s in checkpoint.settings.items() if s.source not in ("assumed", "idle")}
    return said | checkpoint.family.described(checkpoint.reader.tensors)
