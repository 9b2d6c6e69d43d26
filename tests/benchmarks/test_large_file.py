"""What a copy with two sha256 takes at least."""

from __future__ import annotations

import pytest
from benchmarks.large_file import GIB, floor, hash_rate


@pytest.mark.parametrize(("cores", "seconds"), [(1, 6.0), (2, 4.0), (4, 4.0), (16, 4.0)])
def test_the_sha256_is_one_cores(cores, seconds):
    assert floor(4 * GIB, GIB, 2.0, cores) == seconds


def test_a_core_hashes_something():
    assert hash_rate() > 2**24
