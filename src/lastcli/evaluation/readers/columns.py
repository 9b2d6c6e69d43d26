"""`--columns x=open,x=close,y=label`: which columns or arrays are what."""

from __future__ import annotations

from lastcli.errors import UsageError
from lastcli.mappings import suggestion

__all__ = ["parse_columns"]

_ROLES = ("x", "y", "lengths", "mask", "series")


def parse_columns(text: str | None) -> dict[str, tuple[str, ...]]:
    """Names by role; a role said several times has several names, in that order.

    Raises:
        UsageError: not such a list, or an unknown role.
    """
    found: dict[str, tuple[str, ...]] = {}
    for item in [] if text is None else text.split(","):
        role, equals, name = (part.strip() for part in item.partition("="))
        if not equals or not name:
            raise UsageError(f"--columns {text}: write role=name, with commas between: x=open,x=close,y=label.")
        if role not in _ROLES:
            raise UsageError(f"--columns {text}: there is no role {role!r}.{suggestion(role, _ROLES)}")
        found[role] = (*found.get(role, ()), name)
    return found
