"""Memory that a pass over a model lets go of is kept by the process for the next pass.

A pass takes arrays of some megabytes and gives them back, over and over. The C library would return each to the system,
which fills it with zeros, page by page, when it is asked for again.
"""

from __future__ import annotations

import contextlib
import ctypes

__all__ = ["keep_freed_memory"]

# Parameters of mallopt(3) in the GNU C library.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 1 << 30
# What a library takes that refuses more.
_GUARANTEED = 32 << 20


def keep_freed_memory() -> bool:
    """Keep up to 1 GiB of freed memory with this process; whether the C library does. Never raises."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        option = ctypes.CDLL(None).mallopt
        kept = option(_MMAP_THRESHOLD, _LARGEST) or option(_MMAP_THRESHOLD, _GUARANTEED)
        return bool(kept and option(_TRIM_THRESHOLD, _LARGEST))
    return False
