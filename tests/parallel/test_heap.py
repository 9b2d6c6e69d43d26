"""Freed memory that stays with the process: counted in pages that the system has to give."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from typing import ClassVar

import pytest

from lastcli.parallel.heap import keep_freed_memory

PAGES = """
import resource, sys
import numpy as np
from lastcli.parallel.heap import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
sizes = [40 << 20, 24 << 20]
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in sizes:
        np.empty(size, np.uint8).fill(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _has_mallopt():
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.skipif(not _has_mallopt(), reason="the C library has no mallopt")
def test_the_system_gives_freed_memory_once():
    # huge pages would hide what is counted here
    env = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    env.pop("GLIBC_TUNABLES", None)
    pages = {
        how: int(subprocess.run([sys.executable, "-c", PAGES, how], env=env, check=True, capture_output=True).stdout)
        for how in ("keep", "return")
    }
    assert pages["return"] > (40 << 20) // resource.getpagesize() // 2
    assert pages["keep"] < pages["return"] // 20


@pytest.mark.parametrize("missing", [AttributeError, OSError, TypeError])
def test_a_c_library_without_it_is_left_as_it_is(monkeypatch, missing):
    def nothing(name):
        raise missing

    monkeypatch.setattr(ctypes, "CDLL", nothing)
    assert keep_freed_memory() is False


def test_what_a_library_refuses_is_asked_for_smaller(monkeypatch):
    class Library:
        asked: ClassVar[list[tuple[int, int]]] = []

        def mallopt(self, parameter, value):
            self.asked.append((parameter, value))
            return int(value <= 32 << 20 or parameter == -1)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    assert keep_freed_memory() is True
    assert Library.asked == [(-3, 1 << 30), (-3, 32 << 20), (-1, 1 << 30)]
