"""The form of Keep a Changelog: what is wrong with a changelog, one sentence for each slip."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
_RELEASE = re.compile(r"\[(?P<version>\d+\.\d+\.\d+)\] - (?P<date>\d{4}-\d{2}-\d{2})")


def releases(text: str) -> list[tuple[int, ...]]:
    """The released versions, as they come."""
    found = (_RELEASE.fullmatch(title) for title in re.findall(r"^## (.+)$", text, flags=re.MULTILINE))
    return [tuple(map(int, release["version"].split("."))) for release in found if release]


def faults(text: str) -> Iterator[str]:
    """What is not as the form wants it."""
    if not text.startswith("# Changelog\n"):
        yield "it does not begin with '# Changelog'"
    head, *entries = re.split(r"^## ", text, flags=re.MULTILINE)
    for named in ("Keep a Changelog", "Semantic Versioning"):
        if named not in head:
            yield f"the head does not name {named}"
    if not entries or not entries[0].startswith("[Unreleased]\n"):
        yield "the first heading is not [Unreleased]"
    for entry in entries:
        title, _, body = entry.partition("\n")
        if title != "[Unreleased]":
            yield from _title_faults(title)
        yield from (f"{title}: {fault}" for fault in _body_faults(body))
    found = releases(text)
    if found != sorted(set(found), reverse=True):
        yield "the releases are not in falling order"


def _title_faults(title: str) -> Iterator[str]:
    release = _RELEASE.fullmatch(title)
    if not release:
        yield f"'{title}' is not '[MAJOR.MINOR.PATCH] - YYYY-MM-DD'"
        return
    try:
        datetime.date.fromisoformat(release["date"])
    except ValueError:
        yield f"{release['date']} is no date"


def _body_faults(body: str) -> Iterator[str]:
    before, *sections = re.split(r"^### ", body, flags=re.MULTILINE)
    if before.strip():
        yield "text before the first section"
    titles = [section.partition("\n")[0] for section in sections]
    if unknown := [title for title in titles if title not in SECTIONS]:
        yield f"no section is called {', '.join(unknown)}"
    elif titles != sorted(set(titles), key=SECTIONS.index):
        yield "a section comes twice or out of order"
    for title, section in zip(titles, sections):
        lines = [line for line in section.splitlines()[1:] if line]
        if not lines:
            yield f"{title} is empty"
        # an entry is an item of a list; what is indented goes on with it
        elif not lines[0].startswith("- ") or any(not line.startswith(("- ", "  ")) for line in lines):
            yield f"{title} holds more than a list"
