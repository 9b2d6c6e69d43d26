"""Files that a command writes beside what it prints: looked at before the work, written after it.

Of several processes the first one looks and writes; the others end as it does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lastcli.cli.flags import option
from lastcli.errors import OutputError, UsageError
from lastcli.parallel import processes

if TYPE_CHECKING:
    from lastcli.results import Result

__all__ = ["FORCE", "JUNIT", "PLOT", "REPORT", "SUMMARY", "Outputs", "append_summary", "card_place", "summary_files"]

REPORT = option("report", Path | None, "--report", metavar="FILE", help="also write a page with pictures (.html)")
PLOT = option("plot", Path | None, "--plot", metavar="FILE", help="also draw the curves (.png, .svg, .pdf)")
JUNIT = option("junit", Path | None, "--junit", metavar="FILE", help="also write the gates as JUnit XML")
SUMMARY = option("summary", Path | None, "--summary", metavar="FILE", help="append the result as Markdown to this file")
FORCE = option("force", bool, "--force", help="replace what is there", default=False)

_PAGES = (".html", ".htm")


class Outputs(NamedTuple):
    """The files of one command, all None where none was asked for.

    Attributes:
        card: where a model card goes.
        force: whether what is there may be replaced.
    """

    report: Path | None = None
    plot: Path | None = None
    junit: Path | None = None
    card: Path | None = None
    force: bool = False

    @property
    def draws(self) -> bool:
        """Whether pictures are drawn, which need more than the numbers of the result."""
        return self.report is not None or self.plot is not None

    def check(self, *others: Path | None) -> None:
        """Refuse places before any work is done; `others` are outputs of the command that are checked elsewhere.

        Raises:
            UsageError: a suffix that is not known, or two outputs with one name.
            OutputError: something stands there and may not be replaced, or nothing can be written there.
        """
        if processes.index() > 0:
            return
        if self.plot is not None:
            from lastcli.report.plots import plot_format

            plot_format(self.plot)
        if self.report is not None and self.report.suffix.lower() not in _PAGES:
            raise UsageError(f"{self.report}: a report is a page, written as .html.")
        from lastcli import containers

        own = [path for path in (self.report, self.plot, self.junit, self.card) if path is not None]
        named = [os.path.realpath(path) for path in (*own, *(path for path in others if path is not None))]
        for path in own:
            if named.count(os.path.realpath(path)) > 1:
                raise UsageError(f"{path} is named for two outputs; give each a file of its own.")
            containers.check_place(path, force=self.force)

    def write(self, result: Result, session: Any, command: Sequence[str], *, measured: bool = False) -> None:
        """Write every file that was asked for, each atomically.

        Args:
            command: as typed, for the pages that say how they were made.
            measured: whether the held-out split was read.
        """
        if processes.index() > 0:
            return
        from lastcli import containers

        makers: list[tuple[Path | None, Callable[[Path], bytes]]] = [
            (self.plot, lambda path: _plot(result, path)),
            (self.junit, lambda _: _junit(result)),
        ]
        if self.report is not None or self.card is not None:
            from lastcli.verbs.shared.origin import origin_of

            origin = origin_of(session, command, measured=measured, output=getattr(result, "out", None))
            makers.append((self.report, lambda _: _page(result, origin)))
            makers.append((self.card, lambda _: _card(result, origin, session)))
        for path, make in makers:
            if path is not None:
                containers.write_file(path, make(path), force=self.force)


def _plot(result: Result, path: Path) -> bytes:
    from lastcli.report.plots import plot, plot_format

    return plot(result, plot_format(path))


def _junit(result: Result) -> bytes:
    from lastcli.report.gates import as_junit

    return as_junit(result)


def _page(result: Result, origin: Any) -> bytes:
    from lastcli.report.html import as_html

    return as_html(result, origin).encode()


def _card(result: Any, origin: Any, session: Any) -> bytes:
    from lastcli.report.cards import as_card
    from lastcli.verbs.shared.loading import about_reduction, loading_of

    checkpoint = session.checkpoint
    title, loading = checkpoint.family.title, loading_of(checkpoint)
    return as_card(result, origin, title=title, loading=loading, about=about_reduction(result)).encode()


def card_place(out: Path | None, *, dry_run: bool = False, force: bool = False) -> Path:
    """README.md beside the output.

    Raises:
        UsageError: nothing is written that it could stand beside.
        OutputError: a README.md of somebody else's is there, and `force` would replace it.
    """
    if out is None or dry_run:
        raise UsageError("--card describes what --out writes; give --out, and no --dry-run.")
    place = out.absolute().parent / "README.md"
    if force and place.is_file():
        from lastcli.report.cards import MARK

        with place.open("rb") as file:
            if MARK.encode() not in file.read(1 << 12):
                raise OutputError(f"{place} is no card that last wrote, so --force does not replace it; move it away.")
    return place


def summary_files(named: Path | None) -> list[Path]:
    """Where a summary goes: the file of `--summary`, and the one that GitHub shows with the job.

    Raises:
        OutputError: the folder of the file is not there.
    """
    found = [] if named is None else [named]
    job = os.environ.get("GITHUB_STEP_SUMMARY")
    if job and not (named is not None and os.path.realpath(job) == os.path.realpath(named)):
        found.append(Path(job))
    for path in found:
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise OutputError(f"{path}: no summary can be written there; name a file in a folder that exists.")
    return found


def append_summary(files: Sequence[Path], result: Result) -> None:
    """Append the result as Markdown.

    Raises:
        OutputError: a file cannot be written.
    """
    if not files or processes.index() > 0:
        return
    from lastcli.report import as_markdown

    text = f"### last {result.command}\n\n{as_markdown(result)}\n"
    for path in files:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise OutputError(f"{path}: the summary cannot be appended ({error.strerror}).") from error
