"""An old and a new checkpoint of every container, to be written one over the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lastcli import containers
from lastcli.errors import InputError
from tests.containers.samples import put

__all__ = ["OUTPUTS", "Output", "state"]

_OLD = {"a/w": np.zeros((3, 4), np.float32), "b": np.arange(5.0)}
_NEW = {"a/w": np.ones((2, 4), np.float32), "b": np.arange(5.0)}
_VERSIONS = {"old": _OLD, "new": _NEW}


@dataclass(frozen=True)
class Output:
    """A name of an output and how it is written."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, version: str, *, force: bool) -> None:
        """Write the old or the new version."""
        metadata = {containers.DESCRIPTION_KEY: json.dumps({"family": "s5", "version": version})}
        put(folder / self.name, _VERSIONS[version], metadata, force=force, **self.options)


OUTPUTS = {
    "safetensors": Output("x.safetensors"),
    "shards": Output("x", {"shard_bytes": 40}),
    "msgpack": Output("x.msgpack"),
    "orbax": Output("x"),
    "torch": Output("x.pt"),
}


def state(path: Path) -> str | None:
    """What stands at the path: "old" or "new", tensors and description both; None for nothing.

    Raises:
        InputError: something else.
        AssertionError: tensors of the one and a description of the other.
    """
    if not path.exists() and not list(path.parent.glob(".last-*")):
        return None
    try:
        with containers.open_reader(path) as reader:
            arrays = {name: reader.read(name) for name in reader.tensors}
            text = reader.metadata.get(containers.DESCRIPTION_KEY)
    except InputError:
        if path.exists():
            raise
        return None
    said = json.loads(text if text is not None else path.with_suffix(".json").read_text())["version"]
    for name, array in _VERSIONS[said].items():
        if arrays[name].shape != array.shape or arrays[name].tobytes() != array.tobytes():
            raise AssertionError(f"tensor {name} is not of the version {said} that the description says")
    return str(said)
