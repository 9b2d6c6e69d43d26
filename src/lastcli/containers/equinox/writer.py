"""Writing equinox files, one leaf in memory at a time: what `equinox.tree_deserialise_leaves` reads.

The leaves keep the order in which the file that was read had them; the names go into the sidecar.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.base import TensorSource
from lastcli.containers.digests import raw
from lastcli.containers.dtypes import EXTENDED
from lastcli.containers.equinox.npy import is_number, write_header
from lastcli.containers.extras import STRUCTURE_KEY
from lastcli.containers.jobs import Job
from lastcli.containers.structure import of

__all__ = ["arranged", "write_equinox"]

_DTYPES: dict[type, str] = {bool: "bool", int: "int64", float: "float64", complex: "complex128"}


def arranged(
    sources: tuple[TensorSource, ...], extras: dict[str, Any]
) -> tuple[tuple[TensorSource, ...], dict[str, Any]]:
    """The sources and extras with names, order and dtypes as the sidecar will say them."""
    form = of(extras).get("equinox", {})
    tensors = {source.info.name: source for source in sources}
    numbers = _numbers(extras)
    before = [name for name in form.get("names", []) if name in tensors or name in numbers]
    names = list(dict.fromkeys([*before, *tensors, *numbers]))
    dtypes = {name: tensors[name].info.dtype for name in names if name in tensors}
    made: dict[str, Any] = {"names": names, "scalars": [name for name in names if name in numbers]}
    made |= {"header": form["header"]} if "header" in form else {}
    extended = {name: dtype for name, dtype in dtypes.items() if dtype in EXTENDED}
    made |= {"dtypes": extended} if extended else {}
    structure = {**of(extras), "equinox": made}
    return tuple(tensors[name] for name in names if name in tensors), {**extras, STRUCTURE_KEY: structure}


def write_equinox(temp: Path, job: Job) -> None:
    """Write the leaves."""
    form = of(job.extras)["equinox"]
    sources = {source.info.name: source for source in job.sources}
    numbers = _numbers(job.extras)
    with temp.open("xb") as file:
        if "header" in form:
            file.write(form["header"].encode() + b"\n")
        for name in form["names"]:
            if name in sources:
                info = sources[name].info
                write_header(file, info.shape, info.dtype)
                file.write(raw(job.load(sources[name])))
            else:
                value = np.asarray(numbers[name], _DTYPES[type(numbers[name])])
                write_header(file, (), value.dtype.name)
                file.write(value.tobytes())


def _numbers(extras: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in extras.items() if not name.startswith("last.") and is_number(value)}
