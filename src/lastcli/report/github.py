"""What a job on GitHub shows: workflow commands in the log, and text that cannot be taken for one.

Workflow commands: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

import re

from lastcli.report.text import safe_text

__all__ = ["as_plain_log", "error_command"]

# How a line of a log starts that the runner obeys.
_COMMAND = re.compile(r"^(\s*)(::|##\[)", flags=re.MULTILINE)


def error_command(message: str, title: str, *, file: str | None = None, line: int | None = None) -> str:
    """The line that makes an error annotation, which the runner shows beside the change.

    Args:
        file, line: where it is shown, None where that is nowhere.
    """
    place = {"file": file, "line": line, "title": title}
    said = ",".join(f"{key}={_property(str(value))}" for key, value in place.items() if value is not None)
    return f"::error {said}::{_data(safe_text(message))}"


def as_plain_log(text: str) -> str:
    r"""`text` without lines that the runner would obey: a name such as `::stop-commands::` becomes `\x3a:…`."""
    return _COMMAND.sub(lambda found: f"{found[1]}\\x{ord(found[2][0]):02x}{found[2][1:]}", text)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(safe_text(text)).replace(":", "%3A").replace(",", "%2C")
