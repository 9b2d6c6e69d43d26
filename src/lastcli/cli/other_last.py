"""util-linux has a `last` of its own, which lists logins; who meant that one is told so in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

__all__ = ["refuse_logins"]

# Options of `last` of util-linux that nothing here has, and the pseudo users that people ask it for.
_MEANT = re.compile(
    r"-\d+|-[nfFadiRstpwx]+|--(limit|file|fulltimes|hostlast|dns|ip|nohostname|since|until|present|fullnames|system)"
)
_USERS = {"reboot", "shutdown", "root", "runlevel"}


def refuse_logins(typed: Sequence[str]) -> None:
    """End with exit code 2 where the first argument belongs to the other program."""
    if not typed:
        return
    first = typed[0].partition("=")[0]
    if first in _USERS or _MEANT.fullmatch(first):
        import shlex

        sentence = (
            "Error: This last makes state space models smaller (last --help); the one that lists logins is that of "
            f"util-linux, usually: /usr/bin/last {shlex.join(typed)[:60]}"
        )
        from lastcli.report.text import safe_text

        print(safe_text(sentence), file=sys.stderr)
        raise SystemExit(2)
