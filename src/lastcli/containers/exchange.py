"""Two names exchanged in one step, where the system can: Linux since 3.15, macOS since 10.12."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

__all__ = ["exchange"]

_AT_FDCWD = -100
_EXCHANGE = 2
_LACKING = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def exchange(first: Path, second: Path) -> bool:
    """Exchange what two names of one file system stand for; False where that cannot be done in one step.

    Raises:
        OSError: it can, but failed.
    """
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin":
        call, arguments = getattr(library, "renamex_np", None), (*names, _EXCHANGE)
    else:
        call = getattr(library, "renameat2", None)
        arguments = (_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    if call is None:
        return False
    if call(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _LACKING:
        return False
    raise OSError(number, os.strerror(number), str(second))
