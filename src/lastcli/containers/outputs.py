"""What is asked of an output before any work: its container, its place, what it would replace."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from lastcli.containers.boxes import finish_left
from lastcli.containers.companions import CONFIG, is_companion
from lastcli.containers.container import Container
from lastcli.containers.inputs import shown
from lastcli.containers.place import check_place, writing_errors
from lastcli.containers.registry import CONTAINERS, container_for, container_named, container_of
from lastcli.errors import InputError, OutputError, UsageError

__all__ = ["check_output", "check_resume", "config_place", "container_to_write"]

# The name under which other libraries look for the tensors beside `config.json`.
_MODEL_FILE = "model.safetensors"


def check_resume(
    resume: str | Path | None, path: Path, shard_bytes: int | None, *, anything_else: bool = False
) -> None:
    """Refuse to keep account of shards where there are none.

    Args:
        anything_else: whether there is something else that the file keeps account of.

    Raises:
        UsageError: the output is no folder of shards, or the account would lie in it.
    """
    if resume is None:
        return
    if shard_bytes is None and not anything_else:
        raise UsageError(
            "--resume keeps finished shards and the matching of outputs, and here is neither; write shards with "
            "--shard-size, or match the outputs with --refit match."
        )
    target, file = (Path(os.path.realpath(one)) for one in (path, resume))
    if target == file or target in file.parents:
        raise UsageError(f"--resume {shown(resume, 1000)} lies in the output; name a file beside it.")


def check_output(
    path: Path,
    *,
    inputs: Sequence[Path] = (),
    kind: str | None = None,
    shard_bytes: int | None = None,
    force: bool = False,
    companions: Collection[str] = (),
) -> None:
    """Refuse an output that `write` would refuse for its place or name: to be called before any work.

    Args:
        path: the output.
        inputs: the checkpoints that were read, which are never replaced.
        kind: as in `write`.
        shard_bytes: as in `write`.
        force: whether what is there may be replaced.
        companions: names of the files for other programs that will be written with it.

    Raises:
        OutputError: the output is an input, is taken, has an unknown suffix, nothing can be written there, or what is
            replaced holds a tokenizer that the new checkpoint does not bring.
        UsageError: shards were asked for in another container.
    """
    path = Path(path)
    container = container_to_write(path, kind, shard_bytes)
    folder = container.makes_folder(shard_bytes)
    finish_left(path)
    target = check_place(path, folder=folder, force=force, inputs=inputs)
    with writing_errors(path):
        if folder and target.is_dir() and any(target.iterdir()):
            _refuse_loss(path, target, container)
    _refuse_lost_companions(path, companions)


def _refuse_lost_companions(path: Path, written: Collection[str]) -> None:
    """A tokenizer in a folder that is replaced belongs to it only where the new folder brings its own."""
    if not path.is_dir():
        return
    for name in sorted(item.name for item in path.iterdir()):
        if is_companion(name) and name != CONFIG and name not in written:
            raise OutputError(
                f"{shown(path, 1000)} holds {name}, which the new checkpoint does not bring, so the folder is not "
                "replaced; move the file away, or choose another place."
            )


def config_place(path: Path, *, kind: str | None = None, shard_bytes: int | None = None) -> Path | None:
    """Where the `config.json` of an output goes: among its shards, or beside `model.safetensors`; else nowhere.

    Raises:
        OutputError: the output's suffix is unknown.
    """
    path = Path(path)
    container = container_to_write(path, kind, shard_bytes)
    if not container.shards:
        return None
    if container.makes_folder(shard_bytes):
        return path / CONFIG
    return path.with_name(CONFIG) if path.name == _MODEL_FILE else None


def container_to_write(path: Path, kind: str | None, shard_bytes: int | None) -> Container:
    """The container that an output will be of, as `write` chooses it.

    Raises:
        OutputError: the suffix is unknown, or the container is only read.
        UsageError: shards were asked for in a container that has none.
    """
    if kind is not None:
        container = container_named(kind)
    elif shard_bytes is not None:
        container = next(item for item in CONTAINERS.values() if item.shards)
    else:
        container = container_for(path)
    if shard_bytes is not None and (not container.shards or shard_bytes < 1):
        able = " or ".join(item.name for item in CONTAINERS.values() if item.shards)
        raise UsageError(f"Shards are written only as {able}, of at least one byte each.")
    if container.write is None:
        raise OutputError(
            f"{shown(path, 1000)}: a {container.title} is read and never written, since opening one can run anything; "
            "write a .safetensors file."
        )
    return container


def _refuse_loss(path: Path, target: Path, container: Container) -> None:
    """A folder is replaced only if nothing but one checkpoint of the container that is written is lost."""
    where = shown(path, 1000)
    try:
        existing = container_of(target)
        stranger = None if existing.folder is None else existing.folder.stranger(target)
    except InputError as error:
        raise OutputError(f"{where} is a folder that is no checkpoint or no whole one; choose another name.") from error
    if existing is not container:
        raise OutputError(
            f"{where} is a folder of {existing.title} and the output one of {container.title}; choose another name."
        )
    if stranger is not None:
        raise OutputError(
            f"{where} holds '{shown(stranger)}', which is no part of one {container.title} checkpoint and would be "
            "lost; choose another name."
        )
