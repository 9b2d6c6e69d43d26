"""The `config.json` that another library builds a model from, for the model as it is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lastcli import containers
from lastcli.model.checkpoint import Checkpoint

__all__ = ["config_note", "config_text"]


def config_text(checkpoint: Checkpoint, sizes: Sequence[int] | None = None) -> str | None:
    """The text, None where the checkpoint has no such file.

    Args:
        checkpoint: what was read.
        sizes: stored states of each layer as they are written; None for those of the checkpoint.
    """
    document = checkpoint.description.beside.config
    if document is None:
        return None
    if sizes is not None:
        document = checkpoint.family.written_config(document, sizes)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def config_note(
    checkpoint: Checkpoint, out: Path | None, shard_bytes: int | None, sizes: Sequence[int] = ()
) -> str | None:
    """What keeps the library from building the output from its `config.json`, in one sentence; or None."""
    if checkpoint.description.beside.config is None or out is None:
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
