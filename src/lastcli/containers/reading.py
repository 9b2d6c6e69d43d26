"""Opening a checkpoint: the container is found by content, its module imported only then."""

from __future__ import annotations

from pathlib import Path

from lastcli.containers.base import Reader
from lastcli.containers.inputs import shown
from lastcli.containers.registry import kind_of
from lastcli.containers.safetensors.reader import SafetensorsReader
from lastcli.containers.safetensors.sharded import INDEX_SUFFIX, ShardedReader, find_index
from lastcli.errors import InputError, UsageError

__all__ = ["open_kind", "open_reader"]


def open_reader(path: Path, *, model: str | None = None) -> Reader:
    """Open a checkpoint, whatever its container.

    Args:
        path: a file, a folder, or the index of a sharded folder.
        model: which one of several models of a torch file.

    Raises:
        InputError: the checkpoint is missing, unfinished, damaged or of no known kind.
        UsageError: a torch file has several models and none, or one it has not, is named.
    """
    path = Path(path)
    kind = kind_of(path)
    if model is not None and kind != "torch":
        raise UsageError(
            f"{shown(path, 1000)} is a {kind} checkpoint; only torch files can name one of several models."
        )
    return open_kind(path, kind, model)


def open_kind(path: Path, kind: str, model: str | None = None) -> Reader:
    """Open a checkpoint of a known kind.

    Raises:
        InputError: it is damaged or of another kind.
    """
    if kind == "msgpack":
        from lastcli.containers.msgpack.reader import MsgpackReader

        return MsgpackReader(path)
    if kind == "orbax":
        from lastcli.containers.orbax.reader import OrbaxReader

        return OrbaxReader(path)
    if kind == "torch":
        from lastcli.containers.torch.reader import TorchReader

        return TorchReader(path, model)
    if path.is_dir():
        return _open_folder(path)
    return ShardedReader(path) if path.name.endswith(INDEX_SUFFIX) else SafetensorsReader(path)


def _open_folder(path: Path) -> Reader:
    """A folder of safetensors: by its index, or its only file."""
    index = find_index(path)
    if index is not None:
        return ShardedReader(index)
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise InputError(
            f"{shown(path, 1000)} has {len(files)} safetensors files and no index; give one of them or add "
            f"NAME{INDEX_SUFFIX}."
        )
    return SafetensorsReader(files[0])
