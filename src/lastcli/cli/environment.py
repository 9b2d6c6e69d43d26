"""`last env`: what a bug report needs to say about the machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import sys

__all__ = ["environment", "show_environment"]

_LIBRARIES = (
    *("jax", "jaxlib", "flax", "numpy", "scipy", "ml_dtypes", "msgpack", "tensorstore", "optax", "typer", "rich"),
    *("torch", "matplotlib", "tokenizers", "equinox", "transformers"),
)
_VARIABLES = (
    "JAX_PLATFORMS",
    "JAX_ENABLE_X64",
    "XLA_FLAGS",
    "CUDA_VISIBLE_DEVICES",
    "LAST_CACHE_DIR",
    "NO_COLOR",
    "LANG",
)


def environment() -> dict[str, str]:
    """Versions, devices, cache and the variables that change what `last` does; no paths of the user beyond those."""
    from lastcli._version import __version__
    from lastcli.cli.compile_cache import cache_folder

    found = {"last": __version__, "python": f"{platform.python_version()} ({platform.python_implementation()})"}
    found["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    found["cores"] = str(os.cpu_count())
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["devices"] = _devices()
    found["compile cache"] = "on" if cache_folder() is not None else "off"
    found["encoding"] = sys.stdout.encoding
    return found | {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def _devices() -> str:
    try:
        import jax

        return ", ".join(f"{device.platform} {device.device_kind}" for device in jax.devices())
    except Exception as error:  # a broken installation is what a bug report is about
        return f"none: {type(error).__name__}: {error}"


def show_environment(as_json: bool) -> None:
    """Print it, a line each or as one JSON document."""
    from lastcli.report.text import safe_text

    found = environment()
    if as_json:
        print(json.dumps({"schema": "last.env/1"} | found, indent=2))
        return
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name.ljust(width)}  {safe_text(value)}")
