"""Loading a function out of a user's own module or file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from lastcli.errors import UsageError
from lastcli.mappings import suggestion

__all__ = ["load_function"]


def load_function(spec: str, option: str = "--forward", folder: Path | None = None) -> Callable[..., Any]:
    """The function that `module:function` or `path/to/file.py:function` names.

    Modules are looked for in the working directory too; a file may import what lies beside it.

    Args:
        spec: the name.
        option: which option named it, for messages.
        folder: where a module is looked for, besides the working directory.

    Raises:
        UsageError: there is no such module, file or function, or importing it failed.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name.isidentifier():
        raise UsageError(f"{option} {spec} is not of the form module:function or path/to/file.py:function.")
    module = (
        _load_file(Path(place), spec, option) if place.endswith(".py") else _load_module(place, folder, spec, option)
    )
    function = getattr(module, name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UsageError(f"{option} {spec}: {place} has no function {name!r}.{suggestion(name, own)}")
    return function


def _load_file(path: Path, spec: str, option: str) -> ModuleType:
    try:
        there = path.is_file()
    except OSError:  # a name too long for the file system
        there = False
    if not there:
        raise UsageError(f"{option} {spec}: there is no file {path}.")
    name = f"last_forward_{path.stem}"
    # there always is one of a name that ends in .py
    found = cast(ModuleSpec, importlib.util.spec_from_file_location(name, path))
    module = importlib.util.module_from_spec(found)
    _look_in(path.resolve().parent)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    return _importing(lambda: found.loader.exec_module(module) or module, spec, option)  # type: ignore[union-attr]


def _load_module(name: str, folder: Path | None, spec: str, option: str) -> ModuleType:
    _look_in(Path.cwd())
    if folder is not None:
        _look_in(folder.resolve())
    return _importing(lambda: importlib.import_module(name), spec, option)


def _importing(load: Callable[[], ModuleType], spec: str, option: str) -> ModuleType:
    try:
        return load()
    except Exception as error:  # the border to foreign code: whatever it raises is the user's to see
        raise UsageError(f"{option} {spec} could not be imported: {type(error).__name__}: {error}") from error


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
