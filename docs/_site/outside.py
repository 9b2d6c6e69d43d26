"""What the pages link to outside docs/, brought into the site (a hook of MkDocs).

The pages are read in the repository too, where README.md and benchmarks/ are a link away. In the site, documents of the
project are pages of their own (`PAGES`), every other file that is linked to is copied, and a folder becomes plain text.
A link that leads nowhere stays as it is, so that the strict build ends at it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# page of the site → document of the project
PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "benchmarks.md": "benchmarks/README.md",
    "examples.md": "examples/README.md",
}
COPIES = "project"
# a code block, a code span or a link, whichever begins first: what looks like a link in code is none
PART = re.compile(
    r"^( *)```.*?^\1```$|(`+)[^`].*?\2(?!`)|\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)",
    flags=re.MULTILINE | re.DOTALL,
)


def on_files(files: Any, config: Any) -> Any:
    """The documents of the project become pages."""
    from mkdocs.structure.files import File

    for page, document in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / document).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links of a page that leave docs/ lead to what the site has instead."""
    from mkdocs.structure.files import File

    here = page.file.src_uri

    def moved(text: str, target: str) -> str:
        found = place(here, target)
        if found is None:
            return f"[{text}]({target})"
        if found.startswith(f"{COPIES}/") and files.get_file_from_path(found) is None:
            source = ROOT / found.removeprefix(f"{COPIES}/")
            if source.is_dir():
                return text
            files.append(File.generated(config, found, content=source.read_bytes()))
        anchor = target.partition("#")[1:]
        return f"[{text}]({posixpath.relpath(found, posixpath.dirname(here) or '.')}{''.join(anchor)})"

    return relinked(bars(markdown), moved)


def place(page: str, target: str) -> str | None:
    """Where in the site a link of a page leads that is right in the repository; None: leave it."""
    path, _, _ = target.partition("#")
    if not path or "://" in target or target.startswith("mailto:"):
        return None
    document = PAGES.get(page, f"docs/{page}")
    linked = posixpath.normpath(posixpath.join(posixpath.dirname(document), path))
    if not (ROOT / linked).exists():
        return None
    if (ROOT / linked / "README.md").exists():
        linked = f"{linked}/README.md"
    own = {document: page for page, document in PAGES.items()}
    if linked in own:
        return own[linked]
    if linked.endswith(".md") and not linked.startswith("docs/"):
        return None  # a document without a place in `PAGES`: the build says so
    return linked.removeprefix("docs/") if linked.startswith("docs/") else f"{COPIES}/{linked}"


def relinked(markdown: str, moved: Callable[[str, str], str]) -> str:
    """The text with every link outside code replaced by `moved(text, target)`."""
    return PART.sub(lambda part: moved(part["text"], part["target"]) if part["target"] else part[0], markdown)


def bars(markdown: str) -> str:
    """A bar in a code span of a table, written `\\|` as repositories show it, is a bar here."""
    rows = re.compile(r"^\|.*$", flags=re.MULTILINE)
    spans = re.compile(r"`[^`]*`")
    return rows.sub(lambda row: spans.sub(lambda span: span[0].replace("\\|", "|"), row[0]), markdown)
