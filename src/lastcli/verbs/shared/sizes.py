"""How large the model in a file is, where the file holds more than that model."""

from __future__ import annotations

from lastcli import containers
from lastcli.model.checkpoint import Checkpoint

__all__ = ["carried_bytes", "size_note"]


def carried_bytes(checkpoint: Checkpoint, overhead: int = 0) -> int:
    """Bytes to compare a smaller checkpoint with: those of the file, without what is left behind when it is written.

    Args:
        overhead: what a container adds to the tensors; used where the file's own is not known, because it holds more.
    """
    if not checkpoint.reader.dropped:
        return containers.stored_bytes(checkpoint.path)
    return checkpoint.reader.nbytes + max(overhead, 0)


def size_note(checkpoint: Checkpoint) -> str | None:
    """That `carried_bytes` is not the size of the file, where it is not."""
    if not checkpoint.reader.dropped:
        return None
    return (
        "The size before is that of what is carried on; the whole file has "
        f"{containers.stored_bytes(checkpoint.path):,} bytes."
    )
