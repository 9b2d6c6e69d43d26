"""The `config.json` that another library builds a model from, for the model as it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lastcli import containers
from lastcli.model.checkpoint import Checkpoint

__all__ = ["config_note", "config_text"]


def config_text(checkpoint: Checkpoint, sizes: Sequence[int] | None = None) -> str | None:
    """The text, None where the checkpoint has no such file.

    Args:
        checkpoint: what was read.
        sizes: stored states of each layer as they are written; None for those of the checkpoint.
    """
    document = _document(checkpoint)
    if document is None:
        return None
    if sizes is not None:
        document = checkpoint.family.written_config(document, sizes)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def config_note(
    checkpoint: Checkpoint, out: Path | None, shard_bytes: int | None, sizes: Sequence[int] = ()
) -> str | None:
    """What keeps the library from building the output from its `config.json`, in one sentence; or None."""
    if _document(checkpoint) is None or out is None:
        return None
    if containers.config_place(out, shard_bytes=shard_bytes) is None:
        return (
            "config.json is not written: it stands beside a file named model.safetensors in a folder of its own, or "
            "among shards (--shard-size)."
        )
    if len(set(sizes)) > 1:
        return (
            f"config.json has one number of states for all layers, and these have {', '.join(map(str, sizes))}: to be "
            "built from it they need --layout padded or uniform."
        )
    return None


def _document(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """What `config.json` beside the checkpoint says, where its family understands it."""
    description = checkpoint.description
    if description.beside.config is not None:
        return description.beside.config
    if description.upstream is None or not checkpoint.family.upstream(description.upstream[1]):
        return None
    where, document = description.upstream
    return document if where.endswith(containers.CONFIG) else None
