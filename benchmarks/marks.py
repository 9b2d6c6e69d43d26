"""Pages that people write and scripts fill in between two marks."""

from __future__ import annotations

__all__ = ["between_marks"]


def between_marks(document: str, name: str, text: str) -> str:
    """The document with what stands between the marks of this name replaced; the marks are appended if missing."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in document or end not in document:
        document = f"{document.rstrip()}\n\n{begin}\n{end}\n"
    head, _, rest = document.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}"
