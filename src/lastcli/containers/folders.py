"""Folders that are no checkpoint: the one model file that lies in them, or what they hold, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from lastcli.containers.inputs import is_file, is_folder, shown
from lastcli.errors import InputError

__all__ = ["model_file"]

_MANY = 5
# What trainers write beside the model: optimizers, schedules, random states, settings.
_NO_MODEL = re.compile(r"(optimizer|scheduler|rng_state|scaler|training_args|training_state|random_states)(?![a-z]).*")
# Suffixes of model files besides those of the containers, which are known by their content.
_OTHER_SUFFIXES = ("", ".bin")


def model_file(folder: Path, suffixes: Collection[str], kind_of: Callable[[Path], str], marks: str) -> Path:
    """The only file in a folder that is a model.

    Args:
        folder: it is no checkpoint of a container itself.
        suffixes: those of the containers.
        kind_of: the title of a file's container; raises `InputError` where it has none.
        marks: what a folder would have to hold to be a checkpoint.

    Raises:
        InputError: there are none or several; names them.
    """
    where = shown(folder, 1000)
    try:
        names = sorted((item.name for item in folder.iterdir()), key=_in_order)
    except OSError as error:
        raise InputError(f"{where}: the folder cannot be read ({error.strerror}).") from error
    parts = [name for name in names if name.endswith(".distcp")]
    if parts:
        raise InputError(
            f"{where} is a distributed PyTorch checkpoint ({len(parts)} .distcp file{'s' if len(parts) > 1 else ''}); "
            "make it one file with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.pt`."
        )
    models = {name: title for name in names if (title := _title(folder / name, suffixes, kind_of)) is not None}
    if len(models) == 1:
        return folder / next(iter(models))
    if models:
        kinds = " and ".join(dict.fromkeys(models.values()))
        raise InputError(
            f"{where} is a folder of {len(models)} models ({kinds}): {_listed(list(models))}; give the path of one of "
            "them."
        )
    held = [f"{name}/" if is_folder(folder / name) else name for name in names]
    what = f"it holds {_listed(held)}" if held else "it is empty"
    raise InputError(f"{where} is a folder without a checkpoint ({marks}): {what}; give the path of a checkpoint.")


def _title(path: Path, suffixes: Collection[str], kind_of: Callable[[Path], str]) -> str | None:
    suffix = path.suffix.lower()
    if not is_file(path) or path.name.startswith(".") or _NO_MODEL.fullmatch(path.name):
        return None
    if suffix not in suffixes and suffix not in _OTHER_SUFFIXES:
        return None
    try:
        return kind_of(path)
    except InputError:
        return None


def _listed(names: list[str]) -> str:
    some = [shown(name) for name in (names if len(names) <= _MANY + 1 else names[:_MANY])]
    rest = len(names) - len(some)
    return ", ".join(some) + (f" and {rest} more" if rest else "")


def _in_order(name: str) -> list[tuple[int, int, str]]:
    """Numbers as numbers: checkpoint_3 before checkpoint_20."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() and len(part) < 19 else (1, 0, part) for part in parts]
