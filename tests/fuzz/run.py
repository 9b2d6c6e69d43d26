"""Runs of the mutation fuzzer: every case is a file changed by a seed, read, and judged.

A case may read back as it was, be refused with a sentence (`LastError`), or, where the file has no digests, read as
something else that is sound in itself. Anything else is a finding: another exception, a wrong tensor in a file with
digests, more than ten seconds, more than half a gigabyte.
"""

from __future__ import annotations

import resource
import shutil
import signal
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from types import FrameType
from typing import NoReturn

from lastcli.errors import InputError, LastError, OutputError, UnsupportedModelError, UsageError
from tests.fuzz.subjects import SUBJECTS, copied, original_of

__all__ = ["ALLOWED", "run_subject", "send_outcomes"]

_SECONDS = 10
_MEGABYTES = 512
# The errors a changed file may end in.
ALLOWED = (InputError, UsageError, UnsupportedModelError, OutputError)


class _TooLong(BaseException):
    pass


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _TooLong


def run_subject(name: str, cases: range, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """The outcomes of the cases by kind, and one line for every finding."""
    subject = SUBJECTS[name]
    (folder / "whole").mkdir(parents=True)
    whole = subject.make(folder / "whole")
    original = original_of(whole)
    if subject.check(whole, original) != "same":
        raise AssertionError(f"{name}: the unchanged file is not read as it is")
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    before = signal.signal(signal.SIGALRM, _stop)
    try:
        for case in cases:
            path = copied(whole, folder / str(case))
            subject.spoil(path, Random(f"{seed}/{name}/{case}"))
            peak = _peak()
            signal.alarm(_SECONDS)
            try:
                outcomes[subject.check(path, original)] += 1
            except LastError as error:
                if not isinstance(error, ALLOWED) or "\n" in str(error):
                    findings.append(f"{name}, case {case}: {type(error).__name__}: {error}")
                outcomes["refused"] += 1
            except (Exception, _TooLong) as error:
                findings.append(f"{name}, case {case}: {type(error).__name__}: {str(error)[:200]}")
                outcomes["finding"] += 1
            finally:
                signal.alarm(0)
            if _peak() - peak > _MEGABYTES:
                findings.append(f"{name}, case {case}: {_peak() - peak:.0f} MB of memory")
            shutil.rmtree(path.parent)
    finally:
        signal.signal(signal.SIGALRM, before)
    return outcomes, findings


def send_outcomes(name: str, count: int, seed: int, folder: str, answer: Connection) -> None:
    """`run_subject` in a process of its own: its outcomes and findings are sent."""
    outcomes, findings = run_subject(name, range(count), seed, Path(folder))
    answer.send((dict(outcomes), findings))


def _peak() -> float:
    """The most memory this process has had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
