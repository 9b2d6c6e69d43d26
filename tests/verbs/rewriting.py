"""Pruned files changed after the fact, and what `last verify` says of them."""

from __future__ import annotations

import json

import numpy as np

from lastcli import containers
from lastcli.containers.base import TensorSource


def rewritten(path, change, *, describe=None):
    """The file with its tensors changed by `change(arrays)` and its description by `describe(document)`."""
    with containers.open_reader(path) as reader:
        arrays = {name: np.array(reader.read(name)) for name in reader.tensors}
        metadata = dict(reader.metadata)
    change(arrays)
    document = json.loads(metadata[containers.DESCRIPTION_KEY])
    if describe is not None:
        describe(document)
    metadata[containers.DESCRIPTION_KEY] = json.dumps(document)
    sources = [TensorSource.of(name, array) for name, array in arrays.items()]
    containers.write(path, sources, metadata=metadata, force=True)
    return path


def without_digests(path):
    """The file as a library that knows nothing of hashes writes it."""
    import safetensors.numpy

    with containers.open_reader(path) as reader:
        arrays = {name: np.array(reader.read(name)) for name in reader.tensors}
        metadata = dict(reader.metadata)
    safetensors.numpy.save_file(arrays, path, metadata=metadata)
    return path


def verdict(last, *files, more=()):
    code, out, err = last("verify", *files, "--json", *more)
    assert code in (0, 1), err
    found = json.loads(out)
    assert found["ok"] is (code == 0)
    return found


def how(found):
    return {check["name"]: check["how"] for check in found["checks"]}


def failed(found):
    return {check["name"] for check in found["checks"] if not check["ok"]}
