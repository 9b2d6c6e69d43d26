"""Bytes ↔ named tensors. A container knows bytes, never what a tensor means.

* `registry`: the containers there are, found by content or suffix; `open_reader(path)` opens whichever it is.
* one folder a container: its `CONTAINER` (see `base`), its reader, its writer.
* `writing`: `write(path, sources, ...)`, a checkpoint written atomically and read back. Below it `outputs` and `place`
  say what an output is and where it may stand, `readback` compares, `atomic` puts it in its place.
* `tree`, `structure`, `extras`, `sidecar`: what a file holds besides tensors, so that a conversion loses nothing.

Each name below is imported when it is first used: who reads one kind of file loads neither the writers nor the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcli.lazily import named

if TYPE_CHECKING:
    from lastcli.containers.atomic import write_file
    from lastcli.containers.base import MODEL_KEY, Reader, TensorInfo, TensorSource
    from lastcli.containers.companions import CONFIG, companion_names, companions_of
    from lastcli.containers.container import Container
    from lastcli.containers.digests import DIGESTS_KEY, fingerprint
    from lastcli.containers.inputs import is_file, stored_bytes
    from lastcli.containers.outputs import check_output, check_resume, config_place
    from lastcli.containers.pickle.holders import HOLDERS
    from lastcli.containers.place import check_place
    from lastcli.containers.registry import CONTAINERS, hashing_of, kind_for, kind_of, open_reader
    from lastcli.containers.sidecar import DESCRIPTION_KEY, sidecar_path
    from lastcli.containers.signals import terminable
    from lastcli.containers.structure import sharing
    from lastcli.containers.writing import Receipt, write

__all__ = [
    "CONFIG",
    "CONTAINERS",
    "DESCRIPTION_KEY",
    "DIGESTS_KEY",
    "HOLDERS",
    "MODEL_KEY",
    "Container",
    "Reader",
    "Receipt",
    "TensorInfo",
    "TensorSource",
    "check_output",
    "check_place",
    "check_resume",
    "companion_names",
    "companions_of",
    "config_place",
    "fingerprint",
    "hashing_of",
    "is_file",
    "kind_for",
    "kind_of",
    "open_reader",
    "sharing",
    "sidecar_path",
    "stored_bytes",
    "terminable",
    "write",
    "write_file",
]

__getattr__ = named(
    __name__,
    {
        "atomic": ("write_file",),
        "base": ("MODEL_KEY", "Reader", "TensorInfo", "TensorSource"),
        "companions": ("CONFIG", "companion_names", "companions_of"),
        "container": ("Container",),
        "digests": ("DIGESTS_KEY", "fingerprint"),
        "inputs": ("is_file", "stored_bytes"),
        "outputs": ("check_output", "check_resume", "config_place"),
        "pickle.holders": ("HOLDERS",),
        "place": ("check_place",),
        "registry": ("CONTAINERS", "hashing_of", "kind_for", "kind_of", "open_reader"),
        "sidecar": ("DESCRIPTION_KEY", "sidecar_path"),
        "signals": ("terminable",),
        "structure": ("sharing",),
        "writing": ("Receipt", "write"),
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
