"""`module:function` or `file.py:function`: the user's own code, which returns x, y and lengths.

The only reader that executes anything, and only what the user names. The function takes no argument.
It returns x, a tuple (x, y) or (x, y, lengths), or a mapping with the names of an `.npz`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.readers.archive import check_dtype
from lastcli.evaluation.readers.base import Found, Reader, Request
from lastcli.evaluation.user_code import load_function
from lastcli.mappings import suggestion

__all__ = ["READER", "names_function", "read"]

_KEYS = ("x", "y", "lengths", "mask", "scale", "mean", "std")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def names_function(path: Path, part: str | None) -> bool:
    """Whether `path:part` can be a function of a module or file: no other reader is asked before this is known."""
    return part is not None and part.isidentifier() and (path.suffix == ".py" or bool(_MODULE.fullmatch(path.name)))


def read(request: Request) -> Found:
    """See `Reader.read`."""
    request.refuse_columns("a function")
    # a recipe beside the module puts its folder before the name
    folder = None if request.path.suffix == ".py" else request.path.parent
    place = str(request.path) if folder is None else request.path.name
    spec = f"{place}:{request.part}"
    function = load_function(spec, "--data", folder=folder)
    try:
        given = function()
    except Exception as error:  # the border to foreign code: whatever it raises is the user's to see
        raise UsageError(f"--data {spec} failed: {type(error).__name__}: {error}") from error
    found: dict[str, Any] = {key: value for key, value in _named(given, spec).items() if value is not None}
    return Found(**{key: _array(value, key, spec) for key, value in found.items()})


def _named(given: Any, spec: str) -> dict[str, Any]:
    if isinstance(given, Mapping):
        unknown = next((key for key in given if key not in _KEYS), None)
        if unknown is not None:
            raise UsageError(f"--data {spec} returned {unknown!r}.{suggestion(str(unknown), _KEYS)}")
        found = dict(given)
    elif isinstance(given, tuple):
        if len(given) > 3:
            raise UsageError(f"--data {spec} returned {len(given)} things; x, (x, y) or (x, y, lengths) is needed.")
        found = dict(zip(_KEYS, given))
    else:
        found = {"x": given}
    if found.get("x") is None:
        raise UsageError(f"--data {spec} returned no inputs; x, (x, y) or (x, y, lengths) is needed.")
    return found


def _array(value: Any, key: str, spec: str) -> Any:
    try:
        array = np.asarray(value)
    except Exception as error:  # as above
        raise InputError(f"--data {spec}: {key} is no array ({type(error).__name__}: {error}).") from error
    check_dtype(array.dtype, f"--data {spec}: {key}")
    return array


READER = Reader("function", read)
