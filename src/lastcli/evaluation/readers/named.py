"""What the formats of named arrays share (npz, npy folders, safetensors): which array is what."""

from __future__ import annotations

from collections.abc import Sequence

from lastcli.containers.inputs import shown
from lastcli.errors import InputError
from lastcli.evaluation.readers.base import Request
from lastcli.mappings import suggestion

__all__ = ["NORMALISATION", "ROWS", "inputs_missing", "own_name", "require_named"]

ROWS = ("x", "y", "lengths", "mask")
"""Arrays with an entry for every example."""
NORMALISATION = ("scale", "mean", "std")


def own_name(request: Request, role: str, keys: Sequence[str]) -> str | None:
    """The array that says how inputs are normalised: the part's own, else the file's, else None."""
    return next((name for name in (f"{role}_{request.part}", role) if name in keys), None)


def require_named(request: Request, keys: Sequence[str]) -> None:
    """Whether the arrays that the user named are there.

    Raises:
        InputError: one is not.
    """
    for role, names in request.columns.items():
        for name in names:
            if name not in keys:
                raise InputError(
                    f"{request.where} holds no array {name!r}, which --columns names as {role}."
                    f"{suggestion(name, list(keys))}"
                )


def inputs_missing(request: Request, keys: Sequence[str]) -> InputError:
    """Why there is no `x`: a part was not named or is another one, or the arrays have other names."""
    file, name = request.path, request.array_name("x")
    parts = [key.removeprefix("x_") for key in keys if key.startswith("x_")]
    if parts:
        named = ", ".join(f"{file.name}:{shown(part)}" for part in parts[:20])
        return InputError(f"{request.where} has no array {name!r}; name a part: {named}.")
    held = ", ".join(repr(shown(key)) for key in keys[:8]) or "nothing"
    return InputError(
        f"{request.where} has no array {name!r} (it holds {held}); inputs go into 'x', or say which array they are "
        "with --columns x=NAME,y=NAME."
    )
