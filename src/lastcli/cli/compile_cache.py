"""Compiled programs are kept between runs, in a folder that only its owner can write.

A cache of compiled programs is trusted code: whoever can write into it runs as the user. The folder must therefore
belong to the user with mode 0700, and the folder above it must not be writable by others; otherwise, and where nothing
can be written, there is simply no cache. `LAST_CACHE_DIR` names another place, `LAST_CACHE_DIR=off` turns it off, and
JAX's own `JAX_COMPILATION_CACHE_DIR` comes before both.
"""

from __future__ import annotations

import os
import stat
import sys
import warnings
from pathlib import Path

__all__ = ["VARIABLE", "cache_folder", "enable_compile_cache"]

VARIABLE = "LAST_CACHE_DIR"
_OFF = ("", "0", "off", "no", "none", "false")
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# Compilations shorter than this are done again sooner than they are read.
_SHORTEST_SECONDS = 0.2


def enable_compile_cache() -> Path | None:
    """Turn JAX's persistent compile cache on; returns its folder, or None where there is none. Never raises.

    Call it before the first program is compiled. Does not import JAX, which commands that compile nothing never need.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    folder = cache_folder()
    if folder is None:
        return None
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": _SHORTEST_SECONDS,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    if "jax" in sys.modules:
        import jax

        for name, value in settings.items():
            jax.config.update(name, value)
    else:  # read when JAX is imported
        os.environ.update({name.upper(): str(value) for name, value in settings.items()})
    # a full or vanished disk costs the next run a compilation, nothing else
    warnings.filterwarnings("ignore", message=".*persistent compilation cache.*")
    return folder


def cache_folder() -> Path | None:
    """The cache's folder, made if need be; None where it is off, cannot be written or is not safe."""
    try:
        base = _base()
        if base is None:
            return None
        folder = base / "compiled"
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder if _safe(folder) else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a ~name that is no user
        return None


def _base() -> Path | None:
    named = os.environ.get(VARIABLE)
    if named is not None:
        return None if named.strip().lower() in _OFF else Path(named).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if Path(shared).is_absolute():
        return Path(shared) / "lastcli"
    # not Path.home(): without HOME it would ask the password file, and there may be a reason why HOME is not set
    home = os.environ.get("HOME") or os.environ.get("USERPROFILE") or ""
    return Path(home) / ".cache" / "lastcli" if Path(home).is_absolute() else None


def _safe(folder: Path) -> bool:
    """Whether `folder` is a real folder, the user's own, closed to others, and nobody else can swap it for another."""
    if not hasattr(os, "geteuid"):
        return os.access(folder, os.W_OK)
    user = os.geteuid()
    own, above = folder.lstat(), folder.parent.stat()
    if not stat.S_ISDIR(own.st_mode) or own.st_uid != user or own.st_mode & 0o077:
        return False
    if above.st_uid not in (user, 0) or (above.st_mode & _OTHERS and not above.st_mode & stat.S_ISVTX):
        return False
    return os.access(folder, os.W_OK | os.X_OK)
