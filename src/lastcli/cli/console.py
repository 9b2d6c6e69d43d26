"""Standard output and standard error of one command: data to the one, messages and progress to the other."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from lastcli.errors import ExitCode, LastError, UsageError
from lastcli.parallel import failures, processes

if TYPE_CHECKING:
    from lastcli.results import RecipeCheckResult, Result

__all__ = ["COMMAND", "Console", "guarded", "join_others", "on_github"]

# What was typed, without the program.
COMMAND: ContextVar[tuple[str, ...]] = ContextVar("COMMAND", default=())
# GitHub shows no more of one step.
MOST_ANNOTATIONS = 10


def on_github() -> bool:
    """Whether a job of GitHub Actions reads what is printed."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


class Console:
    """Where a command's words go; of several processes only the first one speaks.

    Args:
        quiet: no messages and no progress on standard error.
        form: "table", "json", "csv" or "markdown" on standard output.
    """

    def __init__(self, *, quiet: bool = False, form: str = "table"):
        self.quiet = quiet
        self.form = form

    @classmethod
    def of(cls, values: dict[str, Any]) -> Console:
        """From the flags `--quiet`, `--json`, `--csv`, `--markdown`.

        Raises:
            UsageError: more than one form.
        """
        forms = [name for name in ("json", "csv", "markdown") if values.pop(f"as_{name}", False)]
        if len(forms) > 1:
            raise UsageError(f"--{forms[0]} and --{forms[1]} exclude each other.")
        console = cls(quiet=values.pop("quiet", False), form=forms[0] if forms else "table")
        logging.getLogger("lastcli").setLevel(logging.ERROR if console.quiet else logging.WARNING)
        return console

    def note(self, sentence: str) -> None:
        """A message for the user, on standard error."""
        if not self.quiet and processes.index() == 0:
            from lastcli.report import safe_text

            print(_logged(safe_text(sentence)), file=sys.stderr)

    def advise(self, sentence: str | None) -> None:
        """What would do better, as the last line, for people only: not beside a document for programs."""
        if sentence is not None and self.form == "table":
            sys.stdout.flush()
            self.note(sentence)

    @property
    def progress(self) -> Callable[..., Any] | None:
        """The factory of progress bars, or None where nobody looks."""
        if self.quiet or processes.index() > 0:
            return None
        from lastcli.report.progress import Progress

        return Progress

    def show(self, result: Result) -> None:
        """The result on standard output, in the form asked for."""
        if processes.index() > 0:
            return
        from lastcli import report

        report.print_result(result, form=self.form, log=on_github())

    def annotate(self, result: Result) -> None:
        """An annotation for each gate that is not met, where a job on GitHub reads standard error."""
        if on_github() and processes.index() == 0:
            from lastcli.report.gates import failures_of
            from lastcli.report.github import error_command

            for sentence in failures_of(result)[:MOST_ANNOTATIONS]:
                print(error_command(sentence, f"last {result.command}"), file=sys.stderr)

    def annotate_lines(self, result: RecipeCheckResult) -> None:
        """The same for each mistake in a recipe, beside its line."""
        if on_github() and processes.index() == 0:
            from lastcli.report.github import error_command

            found = [(one.recipe, problem) for one in result.recipes for problem in one.problems]
            for file, problem in found[:MOST_ANNOTATIONS]:
                text = error_command(problem.message, "last recipe check", file=file, line=problem.line)
                print(text, file=sys.stderr)


def _logged(line: str) -> str:
    """A line as a log should hold it: no name in it may be taken for a command of GitHub's runner."""
    if not on_github():
        return line
    from lastcli.report.github import as_plain_log

    return as_plain_log(line)


class _Notes(logging.Handler):
    """What the library says in passing (an output of a killed run that was found), on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        if processes.index() > 0:
            return
        from lastcli.report import safe_text

        print(_logged(safe_text(record.getMessage())), file=sys.stderr)


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    logger, handler = logging.getLogger("lastcli"), _Notes()
    before, level = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
        logger.setLevel(level)


def join_others() -> None:
    """Of several processes: end together with the others, and keep standard output for what the command prints.

    Gloo, which carries JAX's sums between CPUs, writes into descriptor 1 when it connects; that goes nowhere.
    """
    if not processes.running():
        return
    failures.watch()
    own, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    sys.stdout = os.fdopen(own, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


@contextlib.contextmanager
def guarded(debug: bool) -> Iterator[None]:
    """Turn every way a command can end into its exit code and one sentence on standard error."""
    from lastcli.containers import terminable

    try:
        with terminable(), _notes():
            yield
            sys.stdout.flush()
    except LastError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail_with_others()
        _fail("Interrupted; nothing was left half written.", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # whoever read our output has seen enough; Python would complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(int(ExitCode.DONE)) from None
    except MemoryError:
        _fail("Not enough memory; take a smaller --batch-size or a machine with more.", ExitCode.USAGE)
    except Exception as error:
        if debug:
            raise
        if processes.running() and type(error).__name__ == "JaxRuntimeError":
            _fail_with_others(wait=failures.NOTICE_SECONDS)
            _fail("Another process of the run is gone; nothing was left half written.", ExitCode.INTERRUPTED)
        kind = type(error).__name__
        _fail(f"Bug in last: {kind}: {error}. Run again with --debug and report what it prints.", ExitCode.BUG)


def _fail(sentence: str, code: int) -> None:
    from lastcli.report import safe_text

    if processes.index() == 0:
        print(f"Error: {safe_text(sentence)}", file=sys.stderr)
        if on_github() and code not in (ExitCode.INTERRUPTED, ExitCode.DONE):
            from lastcli.report.github import error_command

            print(error_command(sentence, "last"), file=sys.stderr)
    if processes.running():
        failures.end_with(sentence, code)
    raise SystemExit(int(code)) from None


def _fail_with_others(wait: float = 0.0) -> None:
    """End as another process of the run did, if one did."""
    other = failures.failure(wait)
    if other is not None:
        _fail(f"process {other.process} of the run ended: {other.sentence}", other.code)
