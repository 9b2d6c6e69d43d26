"""Writing torch files through `torch.save`, with the wrapper, prefix and shared tensors of the file they came from.

`torch.save` wants every tensor at once: unlike the other containers, this one needs memory for what is not still
mapped from the input.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lastcli.containers.extras import STRUCTURE_KEY
from lastcli.containers.inputs import shown
from lastcli.containers.jobs import Job
from lastcli.containers.structure import of
from lastcli.containers.tree import build, path_of
from lastcli.errors import OutputError

__all__ = ["INSTALL", "write_torch"]

INSTALL = "torch files are written with PyTorch: pip install 'lastcli[torch]'"

_BITS = {1: "uint8", 2: "int16"}


def write_torch(temp: Path, job: Job) -> None:
    """Write one file.

    Raises:
        OutputError: PyTorch is not installed or could not write.
    """
    try:
        import torch
    except ImportError as error:
        raise OutputError(f"{job.where}: {INSTALL}") from error
    tree = _tree(torch, job)
    try:
        with temp.open("xb") as file:
            torch.save(tree, file)
    except RuntimeError as error:
        # PyTorch's archive writer hides the system's error behind its own
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError):
                raise cause from error
            cause = cause.__context__
        raise OutputError(f"{job.where}: PyTorch could not write the file ({shown(error, 200)}).") from error


def _tree(torch: ModuleType, job: Job) -> dict[str, Any]:
    """The dictionary to save: the state_dict in its wrapper, the extras where they were."""
    structure = of(job.extras)
    form = structure.get("torch", {})
    at = tuple(form.get("at", ()))
    prefix = form.get("prefix", "")
    every = _tensors(torch, job, form.get("shared", []))
    beside = {name: every[name] for name in form.get("beside", {}) if name in every}
    tensors = {name: tensor for name, tensor in every.items() if name not in beside}
    if form.get("nested"):
        paths = {STRUCTURE_KEY: {"paths": structure.get("paths", {})}}
        state_dict: dict[str, Any] = OrderedDict(build(tensors, paths, job.where))
    else:
        state_dict = OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())
    if form.get("versions"):
        state_dict._metadata = OrderedDict(form["versions"])  # type: ignore[attr-defined]
    tree = _place(state_dict, at)
    for name, tensor in beside.items():
        _insert(tree, tuple(form["beside"][name]), tensor, job)
    for name, value in job.own.items():
        _insert(tree, path_of(name, job.extras), value, job)
    return tree


def _tensors(torch: ModuleType, job: Job, shared: Any) -> dict[str, Any]:
    """Every tensor; names that shared one tensor share it again if their bytes are still the same."""
    first = {name: group[0] for group in shared for name in group}
    tensors: dict[str, Any] = {}
    for source in job.sources:
        name = source.info.name
        tensor = _tensor(torch, job.load(source))
        other = first.get(name)
        same = other in tensors and job.digests[name] == job.digests[str(other)]
        if same and tensors[str(other)].shape == tensor.shape and tensors[str(other)].dtype == tensor.dtype:
            tensor = tensors[str(other)]
        tensors[name] = tensor
    return tensors


def _tensor(torch: ModuleType, array: np.ndarray) -> Any:
    name = array.dtype.name
    if not hasattr(np, name) and name != "bool":
        bits = array.view(_BITS[array.dtype.itemsize])
        return _from_numpy(torch, bits).view(getattr(torch, name))
    return _from_numpy(torch, array)


def _from_numpy(torch: ModuleType, array: np.ndarray) -> Any:
    with warnings.catch_warnings():
        # a read-only array is only read here
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


def _place(state_dict: dict[str, Any], at: tuple[str, ...]) -> dict[str, Any]:
    tree = state_dict
    for key in reversed(at):
        tree = {key: tree}
    return tree


def _insert(tree: dict[str, Any], path: tuple[str, ...], value: Any, job: Job) -> None:
    node: Any = tree
    for key in path[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise OutputError(f"{job.where}: '{shown('/'.join(path))}' cannot be stored below a tensor.")
    if path[-1] in node:
        raise OutputError(f"{job.where}: '{shown('/'.join(path))}' is there twice.")
    node[path[-1]] = value
