"""Bytes ↔ named tensors. A container knows bytes, never what a tensor means.

* `open_reader(path)`: an open checkpoint: names, shapes and dtypes; a tensor's bytes when asked.
* `write(path, sources, ...)`: a checkpoint, written atomically and read back.
* `kind_for(path)`: the container for an output path.
"""

from lastcli.containers.base import Reader, TensorInfo, TensorSource
from lastcli.containers.reading import open_reader
from lastcli.containers.registry import kind_for, kind_of
from lastcli.containers.sidecar import DESCRIPTION_KEY, sidecar_path
from lastcli.containers.writing import Receipt, write

__all__ = [
    "DESCRIPTION_KEY",
    "Reader",
    "Receipt",
    "TensorInfo",
    "TensorSource",
    "kind_for",
    "kind_of",
    "open_reader",
    "sidecar_path",
    "write",
]
